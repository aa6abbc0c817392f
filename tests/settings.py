"""Settings for tools that look at the models but reach no server: mypy, ``makemigrations --check``."""

import os

os.environ.setdefault("DATABASE_URL", "sqlite://")
os.environ.setdefault("SECRET_KEY", "for-tools-only")

from worker.settings import *  # noqa: F403
