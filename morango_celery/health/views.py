"""Page for monitors."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from morango_celery.health.examination import examine, is_healthy


@transaction.non_atomic_requests  # a frozen database would hold up the beginning of a transaction
@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Return the state of each check, with the status 200 if all are well, and 503 otherwise.

    It has no data and asks for no login.
    """
    found = examine()
    healthy = is_healthy(found)
    return JsonResponse(
        {"healthy": healthy, "checks": {name: state.value for name, state in found.items()}},
        status=200 if healthy else 503,
    )
