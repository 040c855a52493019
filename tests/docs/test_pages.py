"""What the pages name exists: files, keys, options, links, anchors and pictures."""

import functools
import pathlib
import re

import pytest

from navigan_jax import config as config_lib
from tests.docs.reading import PAGES, ROOT, anchors, first_column, links, prose
from tools.convert_weights.__main__ import main as convert

_WORDS = 1000  # of the front page, which a stranger reads in five minutes
_NO_CONFIGS = ("__init__", "tiny")  # the latter takes the name of another one


@functools.cache
def keys_of(file: str) -> frozenset[str]:
    """Returns the keys of a config file, by its path from the root."""
    return frozenset(config_lib.list_keys(config_lib.load(str(ROOT / file))))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Files are there, from the page's folder, and so are headings."""
    for target in links(page):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert path.is_file(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(str(path.relative_to(ROOT))), target


def test_front_page_leads_to_every_page_and_pages_show_every_picture() -> None:
    """No page and no picture is left over."""
    found = {
        ((ROOT / page).parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in links(page)
    }
    have = {*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.png")}
    assert have - found == set()


def test_front_page_is_short() -> None:
    """A stranger reads it in five minutes."""
    assert len(prose("README.md").split()) <= _WORDS


@pytest.mark.parametrize("page", PAGES)
def test_keys_exist(page: str) -> None:
    """Keys in tables belong to a config that the page names; other keys to any config."""
    text = PAGES[page]
    table = set(first_column(page, "key"))
    named = {key for file in re.findall(r"configs/\w+\.py", text) for key in keys_of(file)}
    assert table <= named, f"{page}: {table - named}"
    files = [path.stem for path in ROOT.glob("configs/*.py") if path.stem not in _NO_CONFIGS]
    every = {key for name in files for key in keys_of(f"configs/{name}.py")}
    used = {key.rstrip(".") for key in re.findall(r"--config\.([\w.]+)", text)}
    assert used - {"key", "synthesis"} <= every, f"{page}: {used - every}"


@pytest.mark.parametrize("page", PAGES)
def test_config_files_and_variants_exist(page: str) -> None:
    """Each `--config=FILE.py:WORD` on the page is a config."""
    for argument in set(re.findall(r"--config=(configs/\w+\.py(?::\w+)?)", PAGES[page])):
        config_lib.load(str(ROOT / argument))


def test_variants_of_tables_exist() -> None:
    """The page of the trainings lists every variant of its config, and no other."""
    listed = first_column("docs/discovery.md", "variant")
    for variant in listed:
        config_lib.load(str(ROOT / f"configs/discover.py:{variant}"))
    with pytest.raises(Exception, match="expected one of") as error:
        config_lib.load(str(ROOT / "configs/discover.py:none"))
    assert all(f"{variant}" in str(error.value) for variant in listed)


@pytest.mark.parametrize("page", PAGES)
def test_options_of_converters_exist(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Those in tables are in the help of a converter."""
    options = first_column(page, "option")
    if not options:
        return
    for kind in ("dcgan", "stylegan2", "navigan", "lpips", "resnet18", "latents", "inspect"):
        with pytest.raises(SystemExit):
            convert([kind, "--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert {option.split()[0] for option in options} <= known


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    """Files of the repository that the page names are there."""
    pattern = r"(?:configs|benchmarks|navigan_jax|tests|tools)/[\w/]+\.(?:py|txt)"
    for name in set(re.findall(pattern, PAGES[page])):
        assert (ROOT / name).is_file(), f"{page} names {name}"
    for module in set(re.findall(r"python -m ([\w.]+)", PAGES[page])) - {"pytest"}:
        path = pathlib.Path(ROOT, *module.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"{page} names {module}"
