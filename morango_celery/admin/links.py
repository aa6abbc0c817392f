"""Links between pages of the admin."""

from __future__ import annotations

from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode


def link_to_run(run_id: int) -> str:
    url = reverse("admin:morango_celery_run_change", args=[run_id])
    return format_html('<a href="{}">Run {}</a>', url, run_id)


def url_of_batches(run_id: int) -> str:
    return f"{reverse('admin:morango_celery_batch_changelist')}?run__id__exact={run_id}"


def url_of_rows(**filters: str | int) -> str:
    """Return the URL of the list of records in error.

    :param filters: values by the parameters of its filters
    """
    return f"{reverse('admin:morango_celery_recordinerror_rows')}?{urlencode(filters)}"
