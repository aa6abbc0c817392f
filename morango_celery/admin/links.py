"""Links between pages of the admin."""

from __future__ import annotations

from collections.abc import Sequence

from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode

from morango_celery.runs.roots import Root


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


def roots_in_words(roots: Sequence[Root], number: int) -> str:
    """Return the records because of which a group fails, a line each, with links to those in error.

    :param number: number of the group's records
    """
    lines = ((_text_of_root(root), root.share_of(number)) for root in roots)
    return format_html_join("", '<br><span class="morango-root">because of {}: {}</span>', lines)


def _text_of_root(root: Root) -> str:
    if root.exception is None:
        return root.text
    url = reverse("admin:morango_celery_recordinerror_change", args=[root.store_id])
    return format_html('<a href="{}">{}</a>', url, root.text)
