"""A deployment of morango_celery: settings, Celery application, sample app, embedded services."""

from worker.celery import app as celery_app

__all__ = ["celery_app"]
