"""Django's command line with this deployment's settings: ``python -m worker migrate``."""

from __future__ import annotations

import os
import sys

from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured
from django.core.management import ManagementUtility


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "worker.settings")
    utility = ManagementUtility(["python -m worker", *sys.argv[1:]])
    try:
        utility.execute()
    except (ImproperlyConfigured, AppRegistryNotReady) as error:
        # Django goes on without settings as far as it gets; its error about them comes first.
        sys.exit(f"error: {utility.settings_exception or error}")


if __name__ == "__main__":
    main()
