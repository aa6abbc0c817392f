"""A second project that writes while another one reads: ``python -m tests.oplog.writer STEPS SEED``."""

from __future__ import annotations

import json
import sys

import django


def main(steps: str, seed: str) -> None:
    django.setup()
    from django.core.management import call_command

    from morango_celery.oplog.logfile import write_out
    from tests.library.logs import library
    from tests.oplog.histories import History

    call_command("migrate", run_syncdb=True, verbosity=0)
    History(int(seed)).go_on(int(steps))
    write_out()
    print(json.dumps(library(), default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
