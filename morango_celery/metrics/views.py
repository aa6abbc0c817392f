"""View for Prometheus."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from morango_celery.metrics.collector import exposed


@transaction.non_atomic_requests  # its own transaction has one view of the ledger
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return all metrics. The project decides about access."""
    text, content_type = exposed(request.headers.get("Accept", ""))
    return HttpResponse(text, content_type=content_type)
