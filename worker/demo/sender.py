"""Process of the device: a Morango instance on SQLite that pushes its records.

It reads DATABASE_URL and DEMO_PASSWORD, and reports its progress as `worker.demo.events`.
"""

from __future__ import annotations

import argparse
import os

import django


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "worker.settings")
    django.setup()
    # Imports models, and so has to wait for the set-up
    from worker.demo import device

    device.prepare_database()
    connection = device.connect(arguments.server, arguments.records)
    own, theirs = device.fetch_certificate(
        connection, arguments.school, arguments.account, os.environ["DEMO_PASSWORD"]
    )
    send = device.send_plain if arguments.plain else device.send
    send(connection, own, theirs, arguments.school, arguments.records)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.demo.sender", description=__doc__)
    parser.add_argument("--server", required=True, help="URL of the other instance")
    parser.add_argument("--school", required=True, help="id of the school's root certificate")
    parser.add_argument("--account", required=True, help="name of a superuser of the server")
    parser.add_argument("--records", type=int, required=True, help="how many to push")
    parser.add_argument(
        "--plain", action="store_true", help="push sound records once: no edits, deletions or broken ones"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
