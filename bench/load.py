"""Fill a migrated database with the records of a case: ``python -m bench.load MODELS CASE RECORDS``."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import django
from django.core.management import call_command
from django.db import connection, transaction

from bench.cases import ON_A_SERVER, is_of_syncs
from bench.profiles import OVER_HTTP

if TYPE_CHECKING:
    from bench.data import StoreRow

CHUNK_ROWS = 10_000


def main(models: str, case: str, records: str) -> None:
    if models == OVER_HTTP:
        from bench import over_http

        over_http.join()
        return
    django.setup()
    if models == "kolibri":
        from bench import kolibri, kolibri_syncs

        if is_of_syncs(case):
            kolibri_syncs.write(case, int(records))
        else:
            kolibri.write(int(records))
        return
    from morango.models.core import InstanceIDModel

    from bench import data, edits, prefixes, syncs

    if writes := {**edits.CASES, **syncs.CASES}.get(case):
        writes(int(records))
    else:
        write({**data.CASES, **prefixes.CASES}[case](int(records)))
    InstanceIDModel.get_or_create_current_instance()  # before two processes make one
    if case.endswith(ON_A_SERVER):
        call_command("create_sync_indexes")


@transaction.atomic
def write(rows: Iterable[StoreRow]) -> None:
    """Insert Store rows, in their order, the fast way of each database."""
    from morango.models.core import Store

    from bench.data import COLUMNS
    from morango_celery.stream import chunked

    table, names = Store._meta.db_table, ", ".join(COLUMNS)
    with connection.cursor() as cursor:
        for chunk in chunked(rows, CHUNK_ROWS):
            if connection.vendor == "postgresql":
                lines = io.StringIO()
                csv.writer(lines, quoting=csv.QUOTE_ALL).writerows(chunk)  # unquoted, empty text is NULL
                lines.seek(0)
                cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN (FORMAT csv)", lines)
            else:
                marks = ", ".join(["%s"] * len(COLUMNS))
                cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", chunk)


if __name__ == "__main__":
    main(*sys.argv[1:])
