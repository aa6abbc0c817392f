"""A worker: ``python -m morango_celery.worker -A project [options of celery worker]``.

It works as ``celery -A project worker`` does, without the modules that only Celery's other commands need: an
interactive shell and plug-ins such as Flower's. Django's checks are left out too, since Celery drops their
results.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Work until told to stop.

    SIGTERM has the running batches finished or requeued, unless the environment variable REMAP_SIGTERM,
    which Celery reads, says something else.

    :raises SystemExit: always, with the worker's exit status; 2 if the arguments are wrong
    """
    parser = argparse.ArgumentParser("python -m morango_celery.worker", add_help=False, allow_abbrev=False)
    parser.add_argument("-A", "--app")
    chosen, options = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    if {"-D", "--detach"}.intersection(options):
        parser.error(
            "a worker stays in the foreground here. To detach one: celery -A PROJECT worker --detach."
        )
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")  # before Celery is imported, which looks at it then
    os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

    from celery import maybe_patch_concurrency

    maybe_patch_concurrency()  # for --pool=gevent, before anything else is imported
    try:
        from celery.app.utils import find_app
        from celery.bin.base import CLIContext
        from celery.bin.worker import worker
    except ImportError as error:  # of names that Celery doesn't promise
        parser.error(f"{error}. Start the worker by `celery -A PROJECT worker`.")

    app = None
    if chosen.app is not None:
        try:
            app = find_app(chosen.app)
        except (ModuleNotFoundError, AttributeError) as error:
            is_missing = isinstance(error, ModuleNotFoundError) and chosen.app.startswith(error.name or " ")
            if not is_missing and error.name != "celery":  # the attribute that is asked for last
                raise
            parser.error(f"{error}. -A names the module that has the Celery app.")
        worker.params.extend(app.user_options["worker"])
    elif "--help" not in options:
        parser.error("-A PROJECT is missing: the module that has the Celery app.")
    worker.main(
        options,
        prog_name=f"{parser.prog} -A PROJECT",
        obj=CLIContext(app=app, no_color=False, workdir=None),
        auto_envvar_prefix="CELERY_WORKER",
    )


if __name__ == "__main__":
    main()
