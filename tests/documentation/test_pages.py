"""Names in the pages exist, and pages that code names: headings, files, targets of the Makefile."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT

DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
FOLDERS = ("bench", "docs", "morango_celery", "tests", "worker")
VAGUE = {"what", "whatever", "whoever", "whom", "whose"}
"""Pronouns without a noun: a sentence that names the thing is read once."""
MOST_VAGUE_PER_THOUSAND = 2
REFERENCE = re.compile(r"\bdocs/([\w/-]+\.(?:md|png|json))(?:#([\w-]+))?")
"""A page or picture that code names, with the heading it means, if it means one."""


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


def assert_there_is(target: Path, anchor: str | None, named: str) -> None:
    assert target.exists(), f"there is no {named}"
    assert not anchor or anchor in anchors(target), f"{target.relative_to(ROOT)} has no #{anchor}"


def tracked_files() -> list[Path]:
    """Return the project's files; outside of a checkout, those of its folders."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        return [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return [ROOT / name for name in listed.stdout.split("\0") if name]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        assert_there_is(page.parent / name if name else page, anchor, link)


def test_code_names_pages_and_headings_that_exist() -> None:
    named = 0
    for path in tracked_files():
        if path in PAGES or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for name, anchor in REFERENCE.findall(text):
            assert_there_is(DOCS / name, anchor, f"docs/{name}, which {path.relative_to(ROOT)} names")
            named += 1

    assert named > 20


def test_index_lists_every_page_once() -> None:
    listed = [link.partition("#")[0] for link in links(INDEX)]

    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES[2:] if page != INDEX)


def test_readme_leads_to_the_index() -> None:
    assert "docs/README.md" in links(PAGES[0])


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


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_pages_name_things(page: Path) -> None:
    words = [word.strip('.,;:()*`?"').lower() for word in prose(page).split()]
    vague = [word for word in words if word in VAGUE]

    assert len(vague) <= max(1, len(words) * MOST_VAGUE_PER_THOUSAND / 1000)
