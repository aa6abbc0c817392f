"""A row of the bench, measured on a few records, so that it does not rot between two measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

from tests.processes import ROOT

RECORDS = 200


@pytest.mark.needs_postgresql
def test_a_row_is_measured_on_fresh_databases_in_fresh_processes(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    output = tmp_path / "results.json"
    options = ["--database=postgresql", "--models=school", f"--records={RECORDS}", "--quick"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--row=deserialize", f"--output={output}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())
    assert [result["workers"] for result in results] == [0, 2]
    for result in results:
        assert (result["name"], result["records"]) == ("deserialize", RECORDS)
        assert (result["left_dirty"], result["baseline_left_dirty"]) == (0, 0)
        assert result["ratio"] > 0
        assert 20 < result["peak_rss_mb"] < 500
        assert result["baseline_statements_per_record"] > 4
    assert results[0]["statements_per_batch"] < 100
    assert (tmp_path / "results.png").exists()
    assert "deserialize" in done.stdout


@pytest.mark.needs_postgresql
def test_syncs_that_are_asked_for_at_once_are_served_by_workers_and_by_processes_of_morangos(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    output = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--row=fleet-of-10", "--records=30", "--quick", f"--output={output}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads(output.read_text())
    assert (result["records"], result["workers"]) == (30, 2)
    assert (result["left_dirty"], result["baseline_left_dirty"]) == (0, 0)
    assert result["baseline"] == "Morango fleet, 2 processes"
    for share in (result["median_share"], result["baseline_median_share"]):
        assert 0 < share < 1  # not all were completed at the same moment
    assert 20 < result["baseline_peak_rss_mb"] < 500


def test_a_run_is_timed_step_by_step(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    options = [f"--database={connection.vendor}", "--records=200"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.profile", *options], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shares = {line[:36].strip(): float(line.split()[-1].rstrip("%")) for line in done.stdout.splitlines()[1:]}
    assert shares.pop("all") == 100
    assert {"claim", "parse", "look up references", "validate", "write", "account for it"} <= shares.keys()
    assert sum(shares.values()) == pytest.approx(100, abs=len(shares) / 2)  # each is rounded
