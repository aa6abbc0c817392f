"""The durable life of a run: plan, producer, batches, progress, hand-over, recovery.

Imports no Celery: what is to be sent goes through a `Dispatch`.
"""
