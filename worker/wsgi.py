"""WSGI application of the sync server, with the admin's files after ``collectstatic``."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from whitenoise import WhiteNoise

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "worker.settings")

application = get_wsgi_application()
if Path(settings.STATIC_ROOT).is_dir():
    application = WhiteNoise(application, root=settings.STATIC_ROOT, prefix=settings.STATIC_URL)
