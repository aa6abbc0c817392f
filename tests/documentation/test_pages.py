"""Names in the pages exist: other pages, their headings, this project's files, its Makefile's targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [page.name for page in PAGES]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
FOLDERS = ("bench", "docs", "morango_celery", "tests", "worker")


def prose(page: Path) -> str:
    """Return a page without its blocks of code, in which a line may begin like a heading."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> Iterator[str]:
    """Return the fragments that a link may have: headings, as GitHub names them, and anchors of our own."""
    text = prose(page)
    yield from re.findall(r'<a id="([^"]+)"></a>', text)
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(page: Path) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"there is no {link}"
        assert not anchor or anchor in anchors(target), f"{target.name} has no #{anchor}"


def test_the_readme_leads_to_every_page() -> None:
    missing = {f"docs/{page.name}" for page in PAGES[1:]} - set(links(PAGES[0]))

    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_make_target_exists(page: Path) -> None:
    code = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    in_code = re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)
    in_prose = re.findall(r"`make ([a-z-]+)", prose(page))

    assert {*in_code, *in_prose} <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_file_of_this_project_exists(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[^`\s]*)`", prose(page))

    for path in named:
        assert list(ROOT.glob(path.rstrip("/"))), f"there is no {path}"
