"""Metrics as Prometheus reads them."""

from __future__ import annotations

from django.test import Client
from prometheus_client.parser import text_string_to_metric_families as parse

Samples = dict[str, float]


def scraped(client: Client) -> Samples:
    """Each sample's value, by its name and labels as they are exposed."""
    answer = client.get("/internal/metrics")
    assert answer.status_code == 200
    found = {}
    for family in parse(answer.content.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("morango_celery_") + (f"{{{labels}}}" if labels else "")] = (
                sample.value
            )
    return found


def only(samples: Samples, name: str) -> Samples:
    return {key: value for key, value in samples.items() if key.partition("{")[0] == name}
