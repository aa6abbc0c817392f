"""Audit: it fails for unaccepted advisories, for accepted ones that don't exist, and for missing answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from tests.supply_chain import accepted, audit, locks
from tests.supply_chain.accepted import HEADING, Accepted, AcceptedError
from tests.supply_chain.advisories import NoAnswerError, ask, findings
from worker.services import free_port

OLD, NEW, OTHER = ("django", "3.2.25"), ("django", "5.2"), ("redis", "8.1.0")
KNOWN = {
    OLD: [
        {
            "id": "PYSEC-2024-1",
            "aliases": ["CVE-2024-0001", "GHSA-aaaa"],
            "summary": "Something\nis wrong",
            "affected": [
                {
                    "package": {"name": "django", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "4.2.1"}]}],
                }
            ],
        }
    ]
}
"""Advisories of these tests' service."""

FIRST, SECOND = Accepted(OLD, "CVE-2024-0001"), Accepted(OLD, "CVE-2024-0002")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Osv(BaseHTTPRequestHandler):
    """Answers as OSV's service does."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = KNOWN.get((query["package"]["name"], query["version"]))
        answer = json.dumps({"vulns": known} if known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    @override
    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def osv_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def page(folder: Path, *rows: str) -> Path:
    path = folder / "supply-chain.md"
    table = ["| package | known as | why |", "|---|---|---|", *rows]
    path.write_text("\n".join([f"# Page\n\n{HEADING}", *table, "", "## More", "| no | such | row |"]))
    return path


def test_advisory_is_found_by_all_its_names() -> None:
    with osv_url() as url:
        (finding,) = ask([OLD, NEW, OTHER], ["--vulnerability-service=osv", f"--osv-url={url}"])

    assert finding.package == OLD
    assert set(finding.ids) == {"PYSEC-2024-1", "CVE-2024-0001", "GHSA-aaaa"}
    assert (finding.fixed_in, finding.summary) == (("4.2.1",), "Something is wrong")
    assert audit.judge([finding], [FIRST]).is_good


def test_the_command_says_what_is_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a vulnerability that nobody accepted, and one accepted that isn't there
    monkeypatch.setattr(locks, "LOCKS", (locks.IMAGE,))
    monkeypatch.setattr(accepted, "read", lambda: [SECOND])

    # When the image's packages are audited
    with osv_url() as url, pytest.raises(SystemExit) as ended:
        audit.main(["--service=osv", f"--osv-url={url}"])

    # Then it fails, and tells both
    assert ended.value.code == 1
    said = capsys.readouterr().out
    ids = "django 3.2.25 (worker/requirements.lock): PYSEC-2024-1, "
    assert ids in said
    assert "fixed in 4.2.1\n    Something is wrong\n" in said
    assert "django 3.2.25: CVE-2024-0002 is accepted in docs/develop/supply-chain.md, but isn't known" in said
    packages = len(locks.read(locks.IMAGE))
    assert f"{packages} packages, 1 known vulnerabilities: 0 accepted, 1 not; 1 accepted that aren't" in said


@pytest.mark.parametrize(
    ("entries", "not_accepted", "outdated"),
    [
        ([FIRST], 0, []),
        ([Accepted(OLD, "GHSA-aaaa")], 0, []),
        ([], 1, []),
        ([SECOND], 1, [SECOND]),
        ([FIRST, SECOND], 0, [SECOND]),
        ([Accepted(NEW, "CVE-2024-0001")], 1, [Accepted(NEW, "CVE-2024-0001")]),
    ],
)
def test_only_accepted_advisories_that_exist_pass(
    entries: list[Accepted], not_accepted: int, outdated: list[Accepted]
) -> None:
    known = {**KNOWN[OLD][0], "fix_versions": [], "description": ""}
    report = {"dependencies": [{"name": OLD[0], "version": OLD[1], "vulns": [known]}]}

    verdict = audit.judge(findings(report, [OLD]), entries)

    assert (len(verdict.not_accepted), verdict.outdated) == (not_accepted, outdated)
    assert verdict.is_good == (not not_accepted and not outdated)


def test_a_service_that_cant_be_reached_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    with pytest.raises(SystemExit) as ended:
        audit.main([])

    assert str(ended.value.code).startswith(
        "error: The advisory service couldn't be reached. pip-audit said: "
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("answered", "message"),
    [
        ([], r"couldn't be reached: there is no answer for 2 of 2 \(django 3\.2\.25, redis 8\.1\.0\)"),
        ([OLD], r"doesn't know some packages: there is no answer for 1 of 2 \(redis 8\.1\.0\)"),
    ],
)
def test_a_package_without_an_answer_is_not_one_without_vulnerabilities(
    answered: list[tuple[str, str]], message: str
) -> None:
    report = {
        "dependencies": [
            {"name": name, "version": version, "vulns": []}
            if (name, version) in answered
            else {"name": name, "skip_reason": "Dependency not found"}
            for name, version in (OLD, OTHER)
        ]
    }

    with pytest.raises(NoAnswerError, match=rf"{message}. pip-audit said: Dependency not found"):
        findings(report, [OLD, OTHER])


def test_accepted_advisories_concern_locked_packages() -> None:
    packages = audit.locked(locks.LOCKS)

    assert [entry for entry in accepted.read() if entry.package not in packages] == []


def test_the_table_is_read(tmp_path: Path) -> None:
    rows = page(tmp_path, "| `django` 3.2.25 | CVE-2024-0001, CVE-2024-0002 | for a reason |")

    assert accepted.read(rows) == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("| `django` | CVE-2024-0001 | no version |", "a row is `name` version, ids and a reason"),
        ("| `django` 3.2.25 | CVE-2024-0001 | |", "a row is `name` version, ids and a reason"),
        ("| `django` 3.2.25 | all of them | why not |", "'all of them' is no id"),
        (
            "| `django` 3.2.25 | CVE-2024-0001, CVE-2024-0001 | twice |",
            "CVE-2024-0001 of django 3.2.25 twice",
        ),
        ("", "has no table below"),
    ],
)
def test_a_row_that_says_too_little_is_refused(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AcceptedError, match=message):
        accepted.read(page(tmp_path, *([row] if row else [])))
