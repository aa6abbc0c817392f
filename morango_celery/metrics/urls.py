"""To be included in a project's URLs, where only those reach it who may."""

from __future__ import annotations

from django.urls import path

from morango_celery.metrics.views import metrics

urlpatterns = [path("metrics", metrics, name="morango_celery_metrics")]
