"""Django's command line with this deployment's settings: ``python -m worker migrate``."""

from __future__ import annotations

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "worker.settings")
    try:
        execute_from_command_line(["python -m worker", *sys.argv[1:]])
    except ImproperlyConfigured as error:
        sys.exit(f"error: {error}")
