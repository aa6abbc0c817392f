"""docs/reference/grafana.json: it asks for metrics, labels and alerts that there are."""

from __future__ import annotations

import json
import re

import yaml

from morango_celery.metrics.names import METRICS
from tests.support.processes import ROOT

DASHBOARD = ROOT / "docs" / "reference" / "grafana.json"
RULES = ROOT / "docs" / "reference" / "rules.yml"


def queries() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_dashboard_lets_a_reader_choose_among_profiles() -> None:
    _, profile = json.loads(DASHBOARD.read_text())["templating"]["list"]
    (name,) = [metric.name for metric in METRICS if metric.name in profile["query"]["query"]]
    assert profile["query"]["query"] == f"label_values({name}, profile)"


def test_dashboard_names_only_metrics_and_labels_that_exist() -> None:
    samples = {name: metric for metric in METRICS for name in metric.sample_names}
    for query in queries():
        named = re.findall(r"\b(morango_celery_\w+)(?:\{([^}]*)\})?", query)
        assert named, query
        for name, chosen in named:
            metric = samples[name]
            grouped = ",".join(re.findall(r"by \(([^)]*)\)", query))
            labels = {*re.findall(r"(\w+)=", chosen), *re.findall(r"\w+", grouped)} - {"le"}
            assert labels <= set(metric.labels), query


def test_dashboard_shows_every_metric() -> None:
    text = "\n".join(queries())
    assert [metric.name for metric in METRICS if not any(name in text for name in metric.sample_names)] == []


def test_dashboard_takes_rates_of_counters_and_quantiles_of_buckets() -> None:
    kinds = {name: metric.kind for metric in METRICS for name in metric.sample_names}
    for query in queries():
        for name in re.findall(r"\bmorango_celery_\w+", query):
            is_rate = bool(re.search(rf"(rate|increase)\({name}\b", query))
            assert is_rate is (kinds[name] != "gauge"), query
            assert ("histogram_quantile" in query) is name.endswith("_bucket"), query


def test_dashboard_names_alerts_that_exist() -> None:
    alerts = {rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    named = {name for panel in panels for name in re.findall(r"MorangoCelery\w+", panel["description"])}

    assert named == alerts - {"MorangoCeleryMetricsMissing"}


def test_dashboards_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
