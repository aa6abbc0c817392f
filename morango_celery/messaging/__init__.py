"""Sender side of Celery: events about runs and batches."""
