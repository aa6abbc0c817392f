"""Build an empty Kolibri device in the database of the environment: ``python -m tests.kolibri.migrate``."""

from __future__ import annotations

import django
from django.conf import settings
from django.core.management import call_command


def main() -> None:
    """Migrate every database that Kolibri has, and give the device its identity."""
    django.setup()
    from morango.models.core import InstanceIDModel

    for alias in settings.DATABASES:
        call_command("migrate", database=alias, interactive=False, verbosity=0)
    InstanceIDModel.get_or_create_current_instance()


if __name__ == "__main__":
    main()
