"""The plug-in's declarations, read by Kolibri before Django's settings are there: no models are imported
here."""

from __future__ import annotations

from typing import Any

from kolibri.core.auth.hooks import FacilityDataSyncHook
from kolibri.plugins import KolibriPluginBase
from kolibri.plugins.hooks import register_hook


class MorangoCelery(KolibriPluginBase):
    django_settings = "settings"
    kolibri_options = "options"


@register_hook
class DeserializingHook(FacilityDataSyncHook):
    @property
    def deserializing_operations(self) -> list[Any]:
        from morango_celery.contrib.kolibri.operation import DeserializeOperation

        return [DeserializeOperation()]
