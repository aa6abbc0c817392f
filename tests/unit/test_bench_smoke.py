"""Scenarios of the bench, measured on a few records, so that they do not rot between two measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection

from tests.support.processes import ROOT

RECORDS = 200


@pytest.mark.timeout(600)  # a dozen processes, one after another
@pytest.mark.needs_postgresql
def test_scenarios_are_measured_on_fresh_databases_in_fresh_processes(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # When a sync is measured in process and by workers
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    output = tmp_path / "results.json"
    options = ["--database=postgresql", "--models=school", f"--records={RECORDS}", "--quick"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--scenario=deserialize", f"--output={output}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    # Then each scenario says what came of it
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())
    in_process, _ = results
    assert [result["workers"] for result in results] == [0, 2]
    for result in results:
        assert result["records"] == RECORDS
        assert (result["left_dirty"], result["baseline_left_dirty"]) == (0, 0)
        assert result["ratio"] > 0
        assert 20 < result["peak_rss_mb"] < 500
        assert 20 < result["baseline_peak_rss_mb"] < 500
        assert result["name"] == "deserialize"
        assert result["baseline_statements_per_record"] > 4
    assert in_process["statements_per_batch"] < 100
    assert in_process["commits"] >= 3  # it begins, is planned, and executes a batch
    assert (tmp_path / "results.png").exists()
    assert "deserialize" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)  # likewise
@pytest.mark.needs_postgresql
def test_results_of_small_syncs_have_the_figures_of_their_thresholds(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    output = tmp_path / "results.json"
    names = [
        *("sync-of-3", "five-deletions", "one-facility", "large-and-small"),
        *("sync-on-a-large-server", "fleet-of-10"),
    ]
    options = ["--models=school", "--quick", *(f"--scenario={name}" for name in names)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", f"--output={output}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = {result["name"]: result for result in json.loads(output.read_text())}
    assert {name: result["records"] for name, result in results.items()} == {
        "sync-of-3": 3,
        "five-deletions": 5,
        "one-facility": 3_000,
        "large-and-small": 2_000,
        "sync-on-a-large-server": 10,
        "fleet-of-10": 400,
    }
    for result in results.values():
        assert result["left_dirty"] == 0
        assert all(threshold["value"] > 0 for threshold in result["thresholds"])
    fleet = results["fleet-of-10"]
    assert fleet["baseline"] == "Morango fleet, 2 processes"
    for share in (fleet["median_share"], fleet["baseline_median_share"]):
        assert 0 < share < 1  # not all were completed at the same moment
    for name in ("sync-of-3", "five-deletions", "sync-on-a-large-server"):
        assert results[name]["statements"] > 10
        assert results[name]["commits"] > 2
    assert 1 <= results["one-facility"]["thresholds"][0]["value"] <= 5  # of five devices


def test_run_is_timed_step_by_step(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
