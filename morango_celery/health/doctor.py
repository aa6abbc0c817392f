"""Diagnosis for operators: everything that a run needs, one look after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from django.db import DatabaseError, InterfaceError

from morango_celery.db.errors import remedy
from morango_celery.errors import BrokerUnreachableError
from morango_celery.health import database, project
from morango_celery.health.findings import Finding, Severity
from morango_celery.health.looks import begin
from morango_celery.printable import printable

OF_THE_DATABASE = ("migrations", "grants", "clock", "workers", "runs")
"""Looks that need the database; they are left out if it doesn't answer."""

START_BROKER = "See that the broker runs, and that broker_url (CELERY_BROKER_URL) points at it."


def diagnose(seconds: float) -> Iterator[Finding]:
    """Yield the findings of all looks, each as soon as it is there.

    :param seconds: time limit of each look
    """
    of_database = _findings("database", database.look_at_database, seconds)
    has_database = of_database[0].severity is Severity.OK
    yield from of_database
    looks: dict[str, Callable[[], Iterator[Finding]]] = {
        "migrations": database.look_at_migrations,
        "grants": database.look_at_grants,
        "clock": database.look_at_clock,
        "settings": partial(project.look_at_settings, has_database=has_database),
        "broker": partial(project.look_at_broker, seconds),
        "workers": project.look_at_workers,
        "runs": project.look_at_runs,
    }
    left_out = set() if has_database else {*OF_THE_DATABASE}
    for name, look in looks.items():
        if name not in left_out:
            found = _findings(name, look, seconds)
            yield from found
            left_out.update(*(finding.prevents for finding in found))


def _findings(name: str, look: Callable[[], Iterator[Finding]], seconds: float) -> list[Finding]:
    """Return the findings of a look; if it fails, or takes too long, that is the finding."""
    try:
        return begin(lambda: list(look())).result(seconds)
    except TimeoutError:
        text = f"no answer within {seconds:g} s"
        return [Finding(name, Severity.ERROR, text, "See whether the server is frozen, or overloaded.")]
    except BrokerUnreachableError as error:
        return [Finding(name, Severity.ERROR, str(error), START_BROKER)]
    except (DatabaseError, InterfaceError) as error:
        return [
            Finding(name, Severity.ERROR, printable(str(error).strip().partition("\n")[0]), remedy(error))
        ]
    except Exception as error:  # of any kind: the other looks go on
        return [Finding(name, Severity.ERROR, printable(f"{type(error).__name__}: {error}"))]
