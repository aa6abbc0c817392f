"""Pages of runs in the admin, as text, and actions that are posted from them."""

from __future__ import annotations

import html
import re
from typing import Any

from django.test import Client

from morango_celery.models import Run
from worker.school.models import PROFILE

RUNS = "/admin/morango_celery/run/"


def new_run(**columns: Any) -> Run:
    return Run.objects.create(
        **{"profile": PROFILE, "serialize_first": False, "session_notified": True, **columns}
    )


def page_of(run: Run) -> str:
    return f"{RUNS}{run.pk}/change/"


def shown(client: Client, page: str) -> str:
    """Return the text of a page, without markup."""
    answer = client.get(page, follow=True)
    assert answer.status_code == 200
    return text_of(answer.content.decode())


def text_of(page: str) -> str:
    main = page.partition('<div class="main')[2]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", main)))


def listed(client: Client, query: str = "") -> set[int]:
    page = client.get(f"{RUNS}?{query}").content.decode()
    return {int(number) for number in re.findall(r'<th class="field-number"><a [^>]*>(\d+)</a>', page)}


def act(client: Client, action: str, *runs: Run, **more: str) -> str:
    """Post an action and return the text of the next page."""
    selected = [str(run.pk) for run in runs]
    answer = client.post(RUNS, {"action": action, "_selected_action": selected, **more}, follow=True)
    assert answer.status_code == 200
    return text_of(answer.content.decode())
