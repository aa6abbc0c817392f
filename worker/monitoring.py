"""Metrics, protected by a token."""

from __future__ import annotations

import os

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare

from morango_celery.metrics.views import metrics


def protected_metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics if METRICS_TOKEN is set and Prometheus' ``authorization`` sends it, else 404."""
    token = os.environ.get("METRICS_TOKEN", "").strip()
    given = request.headers.get("Authorization", "")
    if not token or not constant_time_compare(given, f"Bearer {token}"):
        raise Http404
    response: HttpResponse = metrics(request)
    return response
