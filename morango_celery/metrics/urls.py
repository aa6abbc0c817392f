"""URLs of the metrics. A project includes them where only the permitted reach them."""

from __future__ import annotations

from django.urls import path

from morango_celery.metrics.views import metrics

urlpatterns = [path("metrics", metrics, name="morango_celery_metrics")]
