"""The known vulnerabilities that are accepted: the table of docs/develop/supply-chain.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.supply_chain.advisories import Finding, Package
from tests.support.processes import ROOT

PAGE = ROOT / "docs/develop/supply-chain.md"
HEADING = "## What is known and accepted\n"
PACKAGE = re.compile(r"`([a-z\d-]+)` (\d\S*)")
ID = re.compile(r"(?:CVE|GHSA|PYSEC)-[\w-]+")


class AcceptedError(Exception):
    """The table, or a row of it, can't be used."""


@dataclass(frozen=True)
class Accepted:
    package: Package
    id: str
    """Identifiers in databases of advisories."""

    def covers(self, finding: Finding) -> bool:
        return self.package == finding.package and self.id in finding.ids


def read(page: Path = PAGE) -> list[Accepted]:
    """Return the accepted advisories. A row has a package, an advisory, and the reason to accept it.

    :raises AcceptedError: there is no such table, or a row has another form or repeats another one
    """
    _, heading, text = page.read_text(encoding="utf-8").partition(HEADING)
    rows = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")][2:]
    if not heading or not rows:
        raise AcceptedError(f"{page.name} has no table below {HEADING.strip()!r}.")
    found: list[Accepted] = []
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        package = PACKAGE.fullmatch(cells[0])
        if len(cells) != 3 or not package or not cells[2]:
            raise AcceptedError(f"{page.name}: a row is `name` version, ids and a reason, not {row}")
        for one in (part.strip() for part in cells[1].split(",")):
            if not ID.fullmatch(one):
                raise AcceptedError(f"{page.name}: {one!r} is no id such as CVE-2024-12345.")
            found.append(Accepted((package[1], package[2]), one))
    for entry in found:
        if found.count(entry) > 1:
            raise AcceptedError(f"{page.name} has {entry.id} of {' '.join(entry.package)} twice.")
    return found
