"""The durable life of a run: plan, producer, batches, progress, completion, recovery.

No module of it imports Celery: messages are sent through a `Dispatch`.
"""
