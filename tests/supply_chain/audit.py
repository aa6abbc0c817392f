"""Known vulnerabilities of locked packages, without accepted ones: ``python -m tests.supply_chain.audit``."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.supply_chain import accepted, locks
from tests.supply_chain.accepted import Accepted, AcceptedError
from tests.supply_chain.advisories import Finding, NoAnswerError, Package, ask
from tests.supply_chain.locks import LockError
from tests.support.processes import ROOT


@dataclass(frozen=True)
class Verdict:
    findings: Sequence[Finding]
    not_accepted: Sequence[Finding]
    outdated: Sequence[Accepted]
    """Accepted, and not found."""

    @property
    def is_good(self) -> bool:
        return not self.not_accepted and not self.outdated


def locked(files: Sequence[Path]) -> dict[Package, list[str]]:
    """Return the locked packages of all systems, each with its lock files."""
    found = defaultdict(list)
    for file in files:
        for pin in locks.read(file):
            found[pin.name, pin.version].append(str(file.relative_to(ROOT)))
    return dict(found)


def judge(findings: Sequence[Finding], entries: Sequence[Accepted]) -> Verdict:
    return Verdict(
        findings,
        [finding for finding in findings if not any(entry.covers(finding) for entry in entries)],
        [entry for entry in entries if not any(entry.covers(finding) for finding in findings)],
    )


def describe(verdict: Verdict, where: Mapping[Package, Sequence[str]]) -> str:
    page = accepted.PAGE.relative_to(ROOT)
    lines = []
    for finding in verdict.not_accepted:
        ids, files = ", ".join(finding.ids), ", ".join(where[finding.package])
        fixed = f"fixed in {', '.join(finding.fixed_in)}" if finding.fixed_in else "not fixed"
        lines.append(f"{' '.join(finding.package)} ({files}): {ids}, {fixed}")
        lines.append(f"    {finding.summary[:200]}")
    lines += [
        f"{' '.join(entry.package)}: {entry.id} is accepted in {page}, but isn't known of what is locked"
        for entry in verdict.outdated
    ]
    found, new = len(verdict.findings), len(verdict.not_accepted)
    lines.append(
        f"{len(where)} packages, {found} known vulnerabilities: {found - new} accepted, {new} not; "
        f"{len(verdict.outdated)} accepted that aren't known."
    )
    if not verdict.is_good:
        lines.append(f"Upgrade what can be upgraded; of the rest, {page} has to say why it is accepted.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="make audit", description="Known vulnerabilities of what is locked."
    )
    parser.add_argument("--service", choices=["pypi", "osv"], default="pypi", help="(default: %(default)s)")
    parser.add_argument("--osv-url", help="of a service that answers as OSV does")
    options = parser.parse_args(arguments)
    service = [f"--vulnerability-service={options.service}"]
    if options.osv_url:
        service.append(f"--osv-url={options.osv_url}")
    try:
        entries = accepted.read()
        where = locked(locks.LOCKS)
        verdict = judge(ask(list(where), service), entries)
    except (AcceptedError, LockError, NoAnswerError) as error:
        sys.exit(f"error: {error}")
    print(describe(verdict, where))
    if not verdict.is_good:
        sys.exit(1)


if __name__ == "__main__":
    main()
