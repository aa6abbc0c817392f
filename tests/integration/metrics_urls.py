"""A project that includes the metrics."""

from django.urls import include, path

urlpatterns = [path("internal/", include("morango_celery.metrics.urls"))]
