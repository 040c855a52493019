"""What the README shows is true."""

import pathlib
import re

import numpy as np
import pytest

from tools.convert_weights.__main__ import main as convert

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def test_python_example_runs_and_edits_images(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python block runs as it stands beside a converted generator, and its edit shows."""
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    statements = [line for line in block.splitlines() if line and "import" not in line]
    assert len(statements) == 5
    monkeypatch.chdir(tmp_path)
    assert convert(["dcgan", "faces", "--out", "runs/weights/faces.safetensors"]) == 0
    names: dict = {}
    exec(block, names)
    images, generator, params = (names[name] for name in ("images", "generator", "params"))
    assert images.shape == (16, 64, 64, 3)
    assert np.all(names["directions"].measures["residual"] <= 1e-3)
    originals = generator.synthesize(params, generator.map_latent(params, names["z"]))
    change = np.mean(np.abs(np.asarray(images - originals)), axis=(1, 2, 3))
    assert np.all(change > 1e-3)


def test_named_files_and_keys_exist() -> None:
    """Files that the README names are there, and so are the keys of its table."""
    root = pathlib.Path(__file__).parents[1]
    for name in set(re.findall(r"(?:configs|benchmarks|docs)/\w+(?:\.\w+)?", README)):
        assert list(root.glob(f"{name}*")), f"README names {name}, which is not there"
    config = (root / "configs/hessian.py").read_text()
    for key in re.findall(r"^\| `([\w.]+)` \|", README, flags=re.MULTILINE):
        if "/" not in key and "." in key and not key.endswith((".safetensors", ".html", ".json")):
            assert f"config.{key} = " in config, f"README tells of {key}, which is no key"
