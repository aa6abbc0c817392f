"""Flower's command line, with this package's configuration and an application of its own."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from morango_celery.contrib.flower import config


def main() -> None:
    if find_spec("flower") is None:
        sys.exit("error: Flower is not installed: install morango-celery[flower].")
    from celery.bin.celery import celery

    celery.main(
        [
            "--app=morango_celery.contrib.flower.application",
            "flower",
            f"--conf={config.__file__}",
            *sys.argv[1:],
        ],
        auto_envvar_prefix="CELERY",
    )


if __name__ == "__main__":
    main()
