"""Collector for prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from django.core.exceptions import ImproperlyConfigured
from typing_extensions import override

try:
    from prometheus_client.core import (
        CollectorRegistry,
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.core import Metric as Family
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImproperlyConfigured(
        "Metrics take prometheus_client, which is not installed: install morango-celery[metrics], or leave "
        "morango_celery.metrics out of the URLs."
    ) from error

from morango_celery.metrics.figures import Figure, figures
from morango_celery.metrics.names import METRICS, Metric
from morango_celery.printable import printable


class LedgerCollector(Collector):
    """Collector of all metrics, for the view's registry or for a project's own."""

    @override
    def collect(self) -> Iterator[Family]:
        """Yield every metric, even without a figure. Cost: that of `figures`."""
        families = {metric: _family(metric) for metric in METRICS}
        for figure in figures():
            _add(families[figure.metric], figure)
        yield from families.values()

    def describe(self) -> Iterator[Family]:
        """Yield the metrics without figures, for a registry. Cost: no query."""
        yield from map(_family, METRICS)


def exposed(accept: str) -> tuple[bytes, str]:
    """Return all metrics as text, in the format of an ``Accept`` header, and its content type.

    Cost: that of `figures`.
    """
    registry = CollectorRegistry()
    registry.register(LedgerCollector())
    try:
        encode, content_type = choose_encoder(accept)
    except Exception:  # the library raises various errors for a malformed header
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


Families = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def _family(metric: Metric) -> Families:
    match metric.kind:
        case "counter":
            return CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        case "gauge":
            return GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        case "histogram":
            return HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        case _:
            assert_never(metric.kind)


def _add(family: Families, figure: Figure) -> None:
    # Distinct labels stay distinct: no scraper accepts a sample twice
    labels = [printable(label.replace("\\", "\\\\")) for label in figure.labels]
    if isinstance(family, HistogramMetricFamily):
        ends = [*map(str, map(float, figure.metric.buckets_seconds)), "+Inf"]
        family.add_metric(labels, list(zip(ends, figure.buckets, strict=True)), figure.value)
    else:
        family.add_metric(labels, figure.value)
