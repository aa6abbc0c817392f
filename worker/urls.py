"""Morango's sync API, Django's admin, the page for monitors, and metrics."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from worker.monitoring import protected_metrics

urlpatterns = [
    path("admin/", admin.site.urls),
    path("metrics", protected_metrics),
    path("", include("morango_celery.health.urls")),
    path("", include("morango.urls")),
]
