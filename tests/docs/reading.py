"""What pages hold: blocks of code, the commands in them, tables, links and headings."""

import dataclasses
import pathlib
import re
import subprocess
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
}

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Bash itself says what it would run: there is no program on its path, so each command, with the
# quotes, variables and line breaks of the page resolved, comes to the handler.
_RECORD = """
command_not_found_handle() { printf '%s\\0' "$@"; printf '\\n\\0'; }
.() { command_not_found_handle . "$@"; }
echo() { command_not_found_handle echo "$@"; }
PATH=/nowhere
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Returns the fenced blocks of a page."""
    return [Block(*found) for found in _FENCED.findall(PAGES[page])]


def prose(page: str) -> str:
    """Returns a page without its fenced blocks."""
    return _FENCED.sub("", PAGES[page])


def commands(script: str, folder: pathlib.Path = ROOT) -> list[tuple[str, ...]]:
    """Returns the arguments of each command that Bash would run for a script in a folder."""
    done = subprocess.run(
        ["/bin/bash", "-c", _RECORD + script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    found = done.stdout.split("\0\n\0")
    assert found.pop() == "", f"something was printed by no command: {done.stdout!r}"
    return [tuple(command.split("\0")) for command in found]


def commands_of(page: str) -> list[tuple[str, ...]]:
    """Returns the commands of all shell blocks of a page."""
    return [
        command
        for block in blocks(page)
        if block.language == "sh"
        for command in commands(block.text)
    ]


def first_column(page: str, title: str) -> list[str]:
    """Returns the code in the first column of the tables of a page with that title of it."""
    found: list[str] = []
    inside = False
    for line in prose(page).splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.startswith(f"| {title} |"):
            inside = True
        elif inside:
            found += re.findall(r"`([^`]+)`", line.split("|")[1])
    return found


def anchors(page: str) -> set[str]:
    """Returns the anchors of the headings of a page, made by GitHub's rule."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in words}


def links(page: str) -> Sequence[str]:
    """Returns the targets of the links and pictures of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))
