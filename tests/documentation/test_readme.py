"""The settings in README.md: all that a project needs, but for its Celery application."""

from __future__ import annotations

import re
from typing import Any

from django.core.checks import WARNING, run_checks

from tests.support.processes import ROOT

(SETTINGS,) = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def test_settings_of_the_readme_satisfy_every_check(settings: Any) -> None:
    namespace: dict[str, Any] = {"INSTALLED_APPS": settings.INSTALLED_APPS}

    exec(SETTINGS, namespace)

    assert namespace["INSTALLED_APPS"][-1] == "morango_celery"
    for name in ("MORANGO_DESERIALIZE_OPERATIONS", "CELERY_BROKER_URL", "CELERY_BROKER_TRANSPORT_OPTIONS"):
        setattr(settings, name, namespace[name])
    ours = [found for found in run_checks() if str(found.id).startswith("morango_celery.")]
    assert [found for found in ours if found.level >= WARNING] == []
