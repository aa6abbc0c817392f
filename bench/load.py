"""Fill a migrated database with the records of a case: ``python -m bench.load MODELS CASE RECORDS``."""

from __future__ import annotations

import sys

import django
from django.core.management import call_command

from bench.cases import ON_A_SERVER, is_of_syncs
from bench.profiles import OVER_HTTP
from bench.store_rows import write


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


if __name__ == "__main__":
    main(*sys.argv[1:])
