"""docs/reference/rules.yml: each alert fires when it should, and only then.

promtool evaluates the rules. It comes with Prometheus (Debian's package `prometheus`), and is found on PATH.
Where it isn't installed, as in CI, its tests are skipped: it is no Python package, so no lock can have it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client

from morango_celery.metrics.names import METRICS
from morango_celery.models import Comparison, Run
from morango_celery.runs import completion
from morango_celery.runs.pruning import prune_runs
from tests.integration.scraping import Samples, scraped
from tests.support.factories import store_row
from tests.support.processes import ROOT
from tests.support.run_helpers import MISSING, ago, carry_out, new_run

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.integration.metrics_urls")]

RULES = ROOT / "docs" / "reference" / "rules.yml"
(GROUP,) = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUP["rules"]}
SERIES = re.compile(r"\bmorango_celery_\w+")
HOUR = 60
"""Minutes, each with a scrape."""


def check(tmp_path: Path, tests: Sequence[dict[str, Any]]) -> None:
    """Evaluate the rules on series of samples, one a minute."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on PATH; Debian's package prometheus has it")
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def expected(alert: str, series: Mapping[str, str], fires: Mapping[int, Mapping[str, str] | None]) -> Any:
    """Return promtool's test of one alert.

    :param series: values by series, in promtool's notation
    :param fires: labels of the alert that fires, or None, by the minute
    """
    rule = ALERTS[alert]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": alert,
                "exp_alerts": []
                if labels is None
                else [{"exp_labels": {**rule["labels"], **labels}, "exp_annotations": rule["annotations"]}],
            }
            for minute, labels in fires.items()
        ],
    }


def recorded(client: Client, steps: Sequence[tuple[int, Callable[[], Any]]]) -> Iterator[tuple[str, str]]:
    """Yield the series of real scrapes, each with its values in promtool's notation.

    :param steps: deeds, each with the number of minutes for which Prometheus scrapes its outcome
    """
    scrapes: list[tuple[int, Samples]] = []
    for minutes, do in steps:
        do()
        scrapes.append((minutes, scraped(client)))
    names = dict.fromkeys(chain.from_iterable(samples for _, samples in scrapes))
    for name in names:
        if name == "worker_idle_seconds":  # the tests have no workers
            continue
        base, _, labels = name.partition("{")
        quoted = ",".join(
            f'{key}="{value}"'
            for key, _, value in (label.partition("=") for label in labels.rstrip("}").split(",") if label)
        )
        values = (
            f"{samples[name]:g}x{minutes - 1}" if name in samples else f"_x{minutes}"
            for minutes, samples in scrapes
        )
        yield f"morango_celery_{base}{{{quoted}}}", " ".join(values)


def fail_a_run() -> None:
    completion.fail(new_run().pk, RuntimeError("no"))


def end_and_prune(number: int) -> None:
    """Let some failed runs have ended long ago, and delete them."""
    chosen = Run.objects.filter(state=Run.State.FAILED).values_list("pk", flat=True)[:number]
    Run.objects.filter(pk__in=list(chosen)).update(finished_at=ago(10_000), finalized=True)
    assert prune_runs(5000).runs == number


def test_failed_run_is_alerted_from_the_first_on_and_not_by_its_deletion(
    client: Client, tmp_path: Path
) -> None:
    """These are real scrapes: a counter without zeros, or one that falls, fails here."""
    series = dict(
        recorded(
            client,
            [
                (10, lambda: None),  # minutes 0 to 9: an empty ledger
                (2 * HOUR, fail_a_run),  # the first failed run
                (2 * HOUR, fail_a_run),
                (2 * HOUR, lambda: end_and_prune(1)),  # one of two is deleted
                (2 * HOUR, lambda: end_and_prune(1)),  # the other one, too
                (HOUR, fail_a_run),
            ],
        )
    )
    school = {"profile": "school"}
    first, second, third = 10, 10 + 2 * HOUR, 10 + 8 * HOUR
    deleted = dict.fromkeys(range(second + HOUR + 5, third, 7))

    check(
        tmp_path,
        [
            expected(
                "MorangoCeleryRunFailed",
                series,
                {
                    first - 1: None,
                    first + 2: school,
                    first + HOUR + 5: None,
                    second + 2: school,
                    **deleted,
                    third + 2: school,
                },
            )
        ],
    )


def test_difference_is_alerted_from_the_first_on_and_not_by_its_deletion(
    client: Client, tmp_path: Path
) -> None:
    def differ() -> None:
        columns = {"profile": "school", "state": "completed", "finished_at": ago(10_000)}
        Comparison.objects.create(transfer_session_id="1" * 32, differences=2, **columns)

    steps = [(10, lambda: None), (2 * HOUR, differ), (2 * HOUR, lambda: prune_runs(5000))]
    series = dict(recorded(client, steps))
    assert not Comparison.objects.exists()
    quiet = dict.fromkeys(range(10 + HOUR + 5, 10 + 4 * HOUR, 7))
    fires: dict[int, dict[str, str] | None] = {9: None, 12: {}, **quiet}

    check(tmp_path, [expected("MorangoCeleryComparisonDiffers", series, fires)])


def test_records_that_fail_again_and_again_are_alerted_once(client: Client, tmp_path: Path) -> None:
    def fail_records() -> None:
        for _ in range(12):
            store_row("lesson", unit_id=MISSING)
        carry_out()

    def fail_again() -> None:
        carry_out(new_run(retry_errors=True))
        carry_out()  # a later sync tries them, too

    steps = [
        (10, lambda: None),
        (8 * HOUR, fail_records),
        (HOUR, fail_again),
        (HOUR, fail_again),
        (HOUR, lambda: prune_runs(1e-6)),
    ]
    series = dict(recorded(client, steps))
    assert not Run.objects.exists()
    quiet = dict.fromkeys(range(10 + 6 * HOUR + 5, 10 + 11 * HOUR, 7))

    check(
        tmp_path,
        [expected("MorangoCeleryRecordsFail", series, {9: None, 12: {"profile": "school"}, **quiet})],
    )


CASES: dict[str, tuple[dict[str, str], dict[int, dict[str, str] | None]]] = {
    "MorangoCeleryMetricsMissing": (
        {"morango_celery_runs_stalled": "0x10 _x30 0x10"},
        {9: None, 20: None, 30: {}, 45: None},
    ),
    "MorangoCeleryNoWorker": (
        {"morango_celery_worker_idle_seconds": "12x10 290x10 360x10 +Inf +Inf +Inf +Inf +Inf +Inf 20x10"},
        {20: None, 22: None, 26: {}, 36: {}, 40: None},
    ),
    "MorangoCeleryRunStalled": (
        {"morango_celery_runs_stalled": "0x10 2x20 0x10"},
        {9: None, 12: None, 18: {}, 35: None},
    ),
    "MorangoCeleryRunFailed": (
        {'morango_celery_runs_ended_total{profile="school",state="failed"}': "0x10 1x100"},
        {9: None, 12: {"profile": "school"}, 90: None},
    ),
    "MorangoCeleryRecordsFail": (
        {
            'morango_celery_newly_failed_records_total{profile="few"}': "0x10 5x50",
            'morango_celery_records_total{profile="few",outcome="failed"}': "0x10 5x50",
            'morango_celery_records_total{profile="few",outcome="saved"}': "0x60",
            'morango_celery_newly_failed_records_total{profile="many"}': "0x10 50x50",
            'morango_celery_records_total{profile="many",outcome="failed"}': "0x10 50x50",
            'morango_celery_records_total{profile="many",outcome="saved"}': "0x10 9000x50",
            'morango_celery_newly_failed_records_total{profile="most"}': "0x10 50x50",
            'morango_celery_records_total{profile="most",outcome="failed"}': "0x10 50x50",
            'morango_celery_records_total{profile="most",outcome="saved"}': "0x10 100x50",
            'morango_celery_newly_failed_records_total{profile="retried"}': "0x60",
            'morango_celery_records_total{profile="retried",outcome="failed"}': "0x10 0+50x50",
            'morango_celery_records_total{profile="retried",outcome="saved"}': "0x10 100x50",
        },
        {9: None, 20: {"profile": "most"}},
    ),
    "MorangoCeleryRecordsQuarantined": (
        {'morango_celery_quarantined_records{profile="school"}': "0x10 1x20 0x5"},
        {9: None, 12: None, 20: {"profile": "school"}, 33: None},
    ),
    "MorangoCeleryBatchSplit": (
        {
            'morango_celery_batches_total{profile="school",state="split"}': "0x10 1x100",
            'morango_celery_batches_total{profile="school",state="done"}': "0+5x110",
        },
        {9: None, 12: {"profile": "school"}, 90: None},
    ),
    "MorangoCeleryRunWaits": (
        {"morango_celery_oldest_pending_run_seconds": "0x10 900x10 960x20 0x5"},
        {15: None, 22: None, 30: {}, 43: None},
    ),
    "MorangoCeleryPaused": (
        {"morango_celery_pauses": "0x10 1x730 0x10"},
        {9: None, 600: None, 735: {}, 745: None},
    ),
    "MorangoCeleryComparisonDiffers": (
        {"morango_celery_comparison_differences_total": "0x10 3x100"},
        {9: None, 12: {}, 90: None},
    ),
}


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    assert set(CASES) == set(ALERTS)
    check(tmp_path, [expected(alert, series, fires) for alert, (series, fires) in CASES.items()])


def test_healthy_ledger_fires_no_alert(client: Client, tmp_path: Path) -> None:
    series = dict(recorded(client, [(10, lambda: None), (2 * HOUR, lambda: carry_out())]))
    quiet = dict.fromkeys(range(1, 2 * HOUR, 10))

    check(tmp_path, [expected(alert, series, quiet) for alert in ALERTS])


def test_alerts_name_only_series_that_are_exposed_from_the_start(client: Client) -> None:
    exposed = scraped(client)
    kinds = {name: metric for metric in METRICS for name in metric.sample_names}
    for alert, rule in ALERTS.items():
        for name, chosen in re.findall(r"\b(morango_celery_\w+)(?:\{([^}]*)\})?", rule["expr"]):
            metric = kinds[name]
            assert (f"increase({name}" in rule["expr"]) is (metric.kind == "counter"), alert
            if "worker" not in name:  # where workers are needed
                labels = re.findall(r'(\w+)="(\w+)"', chosen)
                if "profile" in metric.labels:
                    labels.append(("profile", "school"))
                shown = ",".join(f"{label}={value}" for label, value in sorted(labels))
                key = name.removeprefix("morango_celery_")
                assert any(series.partition("{")[0] == key and shown in series for series in exposed), (
                    f"{alert}: {key} {shown}"
                )
            by = re.findall(r"by \((\w+)\)", rule["expr"])
            assert set(by) <= set(metric.labels), alert


def test_each_alert_has_a_severity_texts_and_a_section_of_the_runbook() -> None:
    runbook = (ROOT / "docs" / "how-to" / "runbook.md").read_text()
    page = (ROOT / "docs" / "how-to" / "watch.md").read_text()
    assert re.findall(r"^## (\w+)$", runbook, re.MULTILINE) == list(ALERTS)
    for alert, rule in ALERTS.items():
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/how-to/runbook.md#{alert.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert f"| [{alert}](#{alert.lower()}) | " in runbook
        assert f"| {rule['labels']['severity']} |\n" in runbook.split(f"| [{alert}](")[1]
        assert f"\n| `{alert}` | " in page
