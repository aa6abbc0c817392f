"""A plug-in for Kolibri: ``kolibri plugin enable morango_celery.contrib.kolibri``. See docs/start/kolibri.md.

Kolibri's plug-in machinery imports this package before Django's settings are there.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("kolibri") is None:
    raise ImportError(
        "morango_celery.contrib.kolibri is a plug-in for Kolibri, which isn't installed in this environment. "
        "Install morango-celery where Kolibri is. A project without Kolibri needs no plug-in."
    )

from morango_celery.contrib.kolibri.bundle import sort_out_libraries

sort_out_libraries()
