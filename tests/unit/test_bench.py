"""The bench's arithmetic and output. Everything that it names exists."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from morango.models.core import Store

from bench import cases, data, edits, over_http, plot, prefixes, results, syncs
from bench.databases import ENGINES, HOSTS
from bench.implementations import IMPLEMENTATIONS
from bench.machine import BUSY_LOAD, warning
from bench.measurement import Measurement
from bench.profiles import OVER_HTTP, PROFILES
from bench.report import table
from bench.results import Result, Series, result
from bench.scenario import Scenario, Size, Threshold
from bench.scenarios import PREFIXES, SCENARIOS, under_prefixes

KEYS = (
    "name",
    "database",
    "models",
    "records",
    "workers",
    "ours_records_per_second",
    "baseline_records_per_second",
    "ratio",
    "peak_rss_mb",
    "baseline_peak_rss_mb",
    "repetitions",
)
CASES = {"kolibri", *data.CASES, *edits.CASES, *prefixes.CASES, *syncs.CASES}
SCENARIO = Scenario("deserialize", "postgresql", Size(1000, 100), (Threshold("ratio", at_least=20),))


def series(*seconds: float, peak_rss_mb: float = 50.0, description: str = "Morango") -> Series:
    """Measurements of 1,000 records that took so long each."""
    return Series(
        description,
        [Measurement(took, 1000, peak_rss_mb + at, 0, 5000, 1) for at, took in enumerate(seconds)],
        {"free": 1.0},
    )


def compared(ours: Series, baseline: Series, scenario: Scenario = SCENARIO) -> Result:
    return result(scenario, ours, baseline, "a machine")


def test_baseline_is_compared_with_measurements_right_before_and_after_it() -> None:
    found = compared(ours=series(1.0, 2.0, 4.0), baseline=series(20.0, 30.0))
    assert (found.ratio, found.ratio_lowest, found.ratio_highest) == (12.5, 7.5, 20.0)
    assert found.repetitions == 2


def test_rates_are_medians_and_memory_is_the_highest_peak() -> None:
    found = compared(ours=series(1.0, 2.0, 4.0, peak_rss_mb=60.0), baseline=series(20.0, peak_rss_mb=500.0))
    assert (found.ours_records_per_second, found.baseline_records_per_second) == (500.0, 50.0)
    assert (found.peak_rss_mb, found.baseline_peak_rss_mb) == (62.0, 500.0)


def test_implementation_that_is_measured_as_often_as_the_baseline_is_compared_too() -> None:
    assert compared(ours=series(1.0), baseline=series(20.0)).ratio == 20.0


def test_thresholds_are_about_the_median_ratio_the_highest_peak_and_what_is_more_than_the_baselines() -> None:
    thresholds = (
        Threshold("ratio", at_least=1),
        Threshold("records_per_second", at_least=1),
        Threshold("peak_rss_mb", at_most=1),
        Threshold("extra_peak_rss_mb", at_most=1),
        Threshold("extra_ms", at_most=1),
        Threshold("times", at_most=1),
    )
    found = compared(
        series(2.0, 3.0, peak_rss_mb=60.0), series(1.0), replace(SCENARIO, thresholds=thresholds)
    )
    assert [verdict.threshold for verdict in found.thresholds] == list(thresholds)
    assert [verdict.value for verdict in found.thresholds] == [0.417, 416.667, 61.0, 11.0, 1500.0, 2.5]


def test_thresholds_of_small_syncs_are_about_what_their_processes_told() -> None:
    told = Measurement(2.0, 100, 50.0, 0, 36, 1, commits=6, median_share=0.5, ids_per_record=1.2)
    others = replace(told, commits=5, median_share=0.7, ids_per_record=1.1)
    thresholds = (
        Threshold("statements", at_most=35),
        Threshold("commits", at_most=5),
        Threshold("median_share", at_most=0.55),
        Threshold("ids_per_record", at_most=1.1),
    )
    found = compared(Series("ours", [told, others]), series(1.0), replace(SCENARIO, thresholds=thresholds))
    assert [(verdict.value, verdict.is_met) for verdict in found.thresholds] == [
        (36, False),
        (5, True),
        (0.6, False),
        (1.2, False),
    ]
    assert (found.statements, found.baseline_statements) == (36, 5000)


@pytest.mark.parametrize(
    ("threshold", "values"),
    [
        (Threshold("ratio", at_least=20), {19.9: False, 20.0: True, 21.0: True}),
        (Threshold("extra_ms", at_most=100), {-5.0: True, 100.0: True, 100.1: False}),
    ],
)
def test_threshold_is_met_from_its_limit_on(threshold: Threshold, values: dict[float, bool]) -> None:
    assert {value: threshold.is_met(value) for value in values} == values


def test_threshold_that_is_not_met_stands_out_in_the_table() -> None:
    missed = compared(series(1.0), series(19.0))
    met = compared(series(1.0), series(21.0))
    assert not missed.meets_its_thresholds
    assert met.meets_its_thresholds
    heading, first, second = table([missed, met]).splitlines()
    assert heading.split()[:2] == ["scenario", "records"]
    assert "ratio 19 >= 20: NOT MET" in first
    assert "ratio 21 >= 20: met" in second


def test_results_are_a_list_of_objects_with_the_agreed_keys(tmp_path: Path) -> None:
    found = compared(series(1.0), series(20.0))
    results.write([found, found], tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert len(written) == 2
    assert {key: written[0][key] for key in KEYS} == {
        "name": "deserialize",
        "database": "postgresql",
        "models": "school",
        "records": 1000,
        "workers": 0,
        "ours_records_per_second": 1000.0,
        "baseline_records_per_second": 50.0,
        "ratio": 20.0,
        "peak_rss_mb": 50.0,
        "baseline_peak_rss_mb": 50.0,
        "repetitions": 1,
    }


def test_curve_has_a_point_for_each_size_and_morangos_only_where_it_was_measured(tmp_path: Path) -> None:
    curve = replace(SCENARIO, name="curve")
    found = [
        compared(series(1.0), series(20.0)),
        replace(compared(series(0.5), series(1.0, description="ours"), curve), records=9),
        replace(compared(series(1.0), series(20.0), replace(curve, models="kolibri")), records=8),
        replace(compared(series(1.0), series(20.0), replace(curve, name="chain")), records=7),
    ]
    lines = plot.curves(found, "postgresql")
    assert lines == {
        "ours, in process": {(1000, 1000.0, 50.0), (9, 2000.0, 50.0)},
        "Morango": {(1000, 50.0, 50.0)},
    }
    plot.draw(found, tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_busy_machine_is_warned_of() -> None:
    assert warning(BUSY_LOAD) is None
    assert "1.50" in str(warning(1.5))


@pytest.mark.parametrize(
    "scenario", SCENARIOS, ids=lambda scenario: f"{scenario.name} {scenario.database} {scenario.size.full}"
)
def test_names_in_scenarios_exist(scenario: Scenario) -> None:
    assert scenario.database in ENGINES
    assert scenario.models in HOSTS.keys() & PROFILES.keys()
    if scenario.models == OVER_HTTP:
        assert (scenario.ours, scenario.baseline) == (over_http.PLUGGED_IN, over_http.STOCK)
        return
    assert scenario.case in CASES or (scenario.models == "kolibri" and cases.is_of_syncs(scenario.case))
    assert {scenario.ours, scenario.baseline} <= IMPLEMENTATIONS.keys()
    assert scenario.size.quick <= scenario.size.full


def test_no_two_scenarios_have_one_name_on_the_same_data() -> None:
    seen = Counter(
        (
            scenario.name,
            scenario.models,
            scenario.database,
            scenario.size,
            scenario.workers,
            scenario.baseline,
        )
        for scenario in SCENARIOS
    )
    assert max(seen.values()) == 1


@pytest.mark.parametrize("case", ["school", "invalid", "clashing", "chain", "tree"])
def test_case_makes_as_many_records_as_it_is_asked_for_and_the_same_each_time(case: str) -> None:
    rows = list(data.CASES[case](400))
    assert len({row.id for row in rows}) == 400
    assert rows == list(data.CASES[case](400))


@pytest.mark.parametrize("case", prefixes.CASES)
def test_each_prefix_of_a_filter_has_records_and_there_are_no_others(case: str) -> None:
    sync_filter = prefixes.FILTERS[case]()
    number, records = next(item for item in PREFIXES.items() if under_prefixes(item[0]) == case)
    rows = list(prefixes.CASES[case](records))
    assert len({row.id for row in rows}) == records
    assert {row.partition for row in rows} == set(sync_filter)
    assert len(set(sync_filter)) == number


def test_school_is_mostly_logs_and_all_that_they_refer_to() -> None:
    rows = list(data.school(1000))
    assert Counter(row.model_name for row in rows) == {
        "unit": 10,
        "learner": 40,
        "lesson": 50,
        "attempt": 750,
        "feedback": 150,
    }
    before: set[str] = set()
    for row in rows:
        fields = json.loads(row.serialized)
        referred = {
            fields[key]
            for key in ("parent_id", "unit_id", "learner_id", "lesson_id", "attempt_id")
            if fields.get(key)
        }
        assert referred <= before
        before.add(row.id)


def test_one_username_in_a_hundred_is_taken_and_nothing_refers_to_it() -> None:
    rows = [(row.id, json.loads(row.serialized)) for row in data.clashing(1000)]
    names = Counter(fields["username"] for _, fields in rows if "username" in fields)
    assert sum(number - 1 for number in names.values()) == 10
    clashing = {key for key, fields in rows if names[fields.get("username")] > 1}
    assert not clashing & {fields.get("learner_id") for _, fields in rows}


def test_each_of_many_small_syncs_is_the_beginning_of_a_school_of_its_own() -> None:
    filters = syncs.filters(cases.syncs_of(10), records=20)
    rows = list(syncs.beginnings(10, len(filters)))
    under = Counter(row.partition.partition(":")[0] for row in rows)
    assert under == {str(sync_filter): 10 for sync_filter in filters}
    assert len(filters) == 2 + cases.WARM_UP_SYNCS
    assert len({row.id for row in rows}) == len(rows)


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("case", syncs.CASES)
def test_each_of_many_small_syncs_has_as_many_records_under_its_filter_as_the_case_says(
    db: None, case: str, settings: Any
) -> None:
    settings.MORANGO_TEST_POSTGRESQL = True  # Morango sets no isolation level in a test's transaction then
    size = cases.size_of(case)
    records = size * 2
    syncs.CASES[case](records)
    waiting = Counter(
        partition.partition(":")[0]
        for partition in Store.objects.filter(dirty_bit=True).values_list("partition", flat=True)
    )
    filters = Counter(str(sync_filter) for sync_filter in syncs.filters(case, records))
    if case.endswith(cases.ONE_FACILITY):
        assert (waiting.pop(data.school_id(0)), filters.pop(data.school_id(0))) == (records, 2)
        size = syncs.SMALLEST_SCHOOL
    assert waiting == {sync_filter: size * times for sync_filter, times in filters.items()}


def test_each_sync_of_several_has_a_school_of_its_own() -> None:
    rows = list(data.schools(100))
    assert len({row.id for row in rows}) == 100 * data.SYNCS
    assert {row.partition.partition(":")[0] for row in islice(rows, 100)} == {data.school_id(0)}
