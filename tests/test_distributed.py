"""Two processes on one machine, which talk over loopback, do the work of one."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from configs import tiny
from navigan_jax import checkpoints, devices, tasks
from navigan_jax import config as config_lib
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator, write_generator
from navigan_jax.progress import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZES = {"z_dim": 5, "widths": [7, 6], "image_channels": 3}

# Runs main; process 0 dies after its third save, where it is told to.
PROGRAM = """
import os, signal, sys
from navigan_jax import checkpoints, main

saves = 0

def write_and_die(*arguments):
    global saves
    write(*arguments)
    saves += 1
    if saves == 3:
        os.kill(os.getpid(), signal.SIGKILL)

write = checkpoints.write_state
if sys.argv.pop(1) == "die":
    checkpoints.write_state = write_and_die
main.run()
"""


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the file of a random generator."""
    path = tmp_path_factory.mktemp("generator") / "generator.safetensors"
    params = jax.jit(make_generator("dcgan", SIZES).init)(jax.random.key(0))
    write_generator(path, "dcgan", SIZES, jax.device_get(params), {})
    return path


def configure(generator: pathlib.Path) -> config_lib.Config:
    """Returns the config of a run: an odd number of latents, the state saved at every step."""
    config = tiny.get_config("hessian")
    config.generator, config.layer = str(generator), "conv1"
    config.latents.count, config.save_minutes = 7, 0.0
    config.metric.name, config.show.plausible_samples = "l2", 0  # quick to compile
    return config_lib.freeze(config)


def start(command: list[str], workdir: pathlib.Path, *, port: int) -> list[subprocess.Popen[str]]:
    """Starts both processes of a command that takes the flags of main."""
    command = [*command, "--config.distributed=True", f"--workdir={workdir}"]
    environment = os.environ | {
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # as `main` has it, but for a folder of JAX's own
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
    }
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment | {"JAX_PROCESS_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


def start_spectrum(
    generator: pathlib.Path, workdir: pathlib.Path, *, port: int, word: str
) -> list[subprocess.Popen[str]]:
    """Starts both processes of the run of `configure`. word: for the program."""
    command = [sys.executable, "-c", PROGRAM, word, "--config=configs/tiny.py:hessian"]
    command += [f"--config.generator={generator}", "--config.layer=conv1"]
    command += ["--config.latents.count=7", "--config.save_minutes=0.0"]
    command += ["--config.metric.name=l2", "--config.show.plausible_samples=0"]
    return start(command, workdir, port=port)


def end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def port() -> Iterator[int]:
    """Returns a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    yield number


def test_two_processes_find_the_spectrum_of_one_even_when_killed_between(
    generator: pathlib.Path, tmp_path: pathlib.Path, port: int
) -> None:
    """Process 0 dies at its third save; the same command then goes on from there. Process 0 alone
    speaks and writes; its directions are those of a single process up to rounding.
    """
    workdir = tmp_path / "pod"
    processes = start_spectrum(generator, workdir, port=port, word="die")
    try:
        assert processes[0].wait(timeout=600) == -signal.SIGKILL
    finally:
        end(processes)
    assert checkpoints.read_state(workdir / "state.safetensors") is not None
    stopped = (workdir / "metrics.jsonl").read_bytes()
    assert stopped.count(b"\n") == 3

    processes = start_spectrum(generator, workdir, port=port, word="live")
    try:
        said = [process.communicate(timeout=600) for process in processes]
    finally:
        end(processes)
    assert [process.returncode for process in processes] == [0, 0], said
    assert "2 x cpu in 2 processes" in said[0][0] and "gallery.html" in said[0][0]
    assert all("[Gloo]" in line for line in "".join(said[1]).splitlines())
    assert len(list(workdir.glob("events.*"))) == 2  # one for each run, of process 0
    assert (workdir / "metrics.jsonl").read_bytes().startswith(stopped)

    tasks.TASKS["hessian"](configure(generator), checkpoints.make_folder(tmp_path / "one"))
    pod, one = (
        checkpoints.read_arrays(folder / "directions.safetensors")[0]
        for folder in (workdir, tmp_path / "one")
    )
    np.testing.assert_allclose(pod["measures/eigenvalue"], one["measures/eigenvalue"], rtol=1e-5)
    np.testing.assert_allclose(pod["basis/conv1/kernel"], one["basis/conv1/kernel"], atol=1e-3)
    steps = [
        [row["step"] for row in read_metrics(folder / "metrics.jsonl")]
        for folder in (workdir, tmp_path / "one")
    ]
    assert steps[0] == steps[1]


def test_two_processes_train_directions_as_one_does(
    generator: pathlib.Path, tmp_path: pathlib.Path, port: int
) -> None:
    """Process 0 alone saves, and both end with the checkpoint that is best; up to rounding."""
    command = [sys.executable, "-m", "navigan_jax.main", "--config=configs/tiny.py:discover"]
    command += [f"--config.generator={generator}", "--config.layer=conv1"]
    command += ["--config.metric.name=l2", "--config.max_hours=9.0", "--config.steps=4"]
    processes = start(command, tmp_path / "pod", port=port)
    try:
        said = [process.communicate(timeout=600) for process in processes]
    finally:
        end(processes)
    assert [process.returncode for process in processes] == [0, 0], said
    assert "best held-out accuracy" in said[0][0]
    assert all("[Gloo]" in line for line in said[1][0].splitlines())
    config = tiny.get_config("discover")
    config.generator, config.layer, config.metric.name = str(generator), "conv1", "l2"
    config.steps = 4
    tasks.TASKS["discover"](config_lib.freeze(config), checkpoints.make_folder(tmp_path / "one"))
    rows = [
        [(row["step"], row["loss"]) for row in read_metrics(folder / "metrics.jsonl")]
        for folder in (tmp_path / "pod", tmp_path / "one")
    ]
    # Adam makes a whole step of a gradient that is rounding, so losses part at 1e-4 and more.
    np.testing.assert_allclose(rows[0], rows[1], rtol=2e-3)


def test_process_that_is_not_the_main_one_writes_nothing(
    generator: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither files nor words, in a whole run; and it needs the folder of the main process."""
    workdir = checkpoints.make_folder(tmp_path / "run")
    monkeypatch.setattr(devices, "is_main_process", lambda: False)
    with pytest.raises(InputError, match="expected a folder that all processes share; got one"):
        tasks.TASKS["hessian"](configure(generator), workdir)
    for name in ("config.json", "inputs.json"):
        (workdir / name).touch()
    tasks.TASKS["hessian"](configure(generator), workdir)
    assert [path.stat().st_size for path in workdir.iterdir()] == [0, 0]
    said = capsys.readouterr()
    assert not said.out and not said.err


def test_coordinator_s_port_that_is_taken_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for name, value in (("COORDINATOR_ADDRESS", address), ("PROCESS_ID", "0")):
            monkeypatch.setenv(f"JAX_{name}", value)
        monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
        with pytest.raises(InputError, match=r"distributed: .* Address already in use; set JAX_CO"):
            devices.initialize_distributed()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:PORT", "got nobody at 127.0.0.1:.* for 0.5 seconds"),
        ("nowhere", "got JAX_COORDINATOR_ADDRESS='nowhere', which is no host:port"),
    ],
)
def test_coordinator_that_is_not_there_is_one_message(
    address: str, message: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some patience, as the processes of a pod do not start at once."""
    monkeypatch.setattr(devices, "_PATIENCE", 0.5)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address.replace("PORT", str(port)))
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    with pytest.raises(InputError, match=f"distributed: expected processes that .*{message}.*; se"):
        devices.initialize_distributed()


def test_distributed_without_a_cluster_is_one_message(
    generator: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    command = [sys.executable, "-m", "navigan_jax.main", "--config=configs/tiny.py:hessian"]
    command += ["--config.distributed=True", f"--workdir={tmp_path / 'run'}"]
    command += [f"--config.generator={generator}", "--config.layer=conv1"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2 and not done.stdout
    assert "distributed: expected processes that find each other; got " in done.stderr
    assert done.stderr.count("\n") == 1
