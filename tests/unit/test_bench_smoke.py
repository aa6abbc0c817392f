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


def test_a_row_is_measured_on_fresh_databases_in_fresh_processes(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor == "postgresql":
        monkeypatch.setenv("DATABASE_URL", database_url)
    else:
        monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("REDIS_URL", redis_url)
    output = tmp_path / "results.json"
    options = [f"--database={connection.vendor}", "--models=school", f"--records={RECORDS}", "--quick"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--row=deserialize", f"--output={output}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())
    workers = [0, 2] if connection.vendor == "postgresql" else [0]
    assert [result["workers"] for result in results] == workers
    for result in results:
        assert (result["name"], result["records"]) == ("deserialize", RECORDS)
        assert (result["left_dirty"], result["baseline_left_dirty"]) == (0, 0)
        assert result["ratio"] > 0
        assert 20 < result["peak_rss_mb"] < 500
        assert result["baseline_statements_per_record"] > 4
    assert results[0]["statements_per_batch"] < 100
    assert (tmp_path / "results.png").exists()
    assert "deserialize" in done.stdout
