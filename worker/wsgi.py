"""The WSGI application of the sync server."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "worker.settings")

application = get_wsgi_application()
