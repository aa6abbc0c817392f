"""Commands that the pages show, in blocks and within sentences."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from textwrap import dedent

from typing_extensions import override

from tests.support.processes import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_MANAGE = re.compile(r"(?:\bmanage\.py|python -m worker|kolibri manage) ([a-z_]+)(?![\w.-])(.*)")
_COMMENT = re.compile(r"\s+#.*$")


@dataclass(frozen=True)
class Shown:
    """A command line on a page."""

    page: Path
    line: str
    in_block: bool
    """True for one to be copied as it is; in a sentence, arguments may be left out."""

    @property
    def is_usage(self) -> bool:
        """Return True for a line with optional parts, which nobody can copy."""
        return "[" in self.line

    @override
    def __str__(self) -> str:
        return f"{self.page.stem}: {self.line}"


@dataclass(frozen=True)
class Managed:
    """A command of Django's command line."""

    name: str
    arguments: tuple[str, ...]
    shown: Shown

    @override
    def __str__(self) -> str:
        return f"{self.shown.page.stem}: {' '.join([self.name, *self.arguments])}"


def shown() -> Iterator[Shown]:
    """Yield each line of a block without a language, and each text within backticks."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in _BLOCK.findall(text):
            if language:
                continue
            joined = re.sub(r" *\\\n *", " ", dedent(block))
            yield from (Shown(page, _COMMENT.sub("", line), True) for line in joined.splitlines())
        in_sentences = re.findall(r"`([^`]+)`", _BLOCK.sub("", text))
        yield from (Shown(page, code.replace("\n", " "), False) for code in in_sentences)


def managed() -> list[Managed]:
    """Return each command of Django's command line, once with the same arguments."""
    found: dict[tuple[str, tuple[str, ...]], Managed] = {}
    for one in sorted(shown(), key=lambda one: not one.in_block):  # complete ones first
        match = None if one.is_usage else _MANAGE.search(one.line)
        if match is None or "..." in match[2]:
            continue
        arguments = tuple(words_of(match[2]))
        found.setdefault((match[1], arguments), Managed(match[1], arguments, one))
    return list(found.values())


def words_of(line: str) -> list[str]:
    """Return a command's words, up to a redirection, a pipe or another command."""
    split = shlex.shlex(line, posix=True, punctuation_chars="<>|;&")
    split.whitespace_split = True
    return list(takewhile(lambda word: not set(word) <= set("<>|;&"), split))


def lines_of(program: str) -> list[Shown]:
    """Return the commands that begin with these words, without usages."""
    return [one for one in shown() if one.line.startswith(f"{program} ") and not one.is_usage]
