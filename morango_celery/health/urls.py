"""URL of the page for monitors."""

from __future__ import annotations

from django.urls import path

from morango_celery.health.views import healthz

urlpatterns = [path("healthz", healthz, name="morango_celery_healthz")]
