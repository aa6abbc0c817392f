"""A store of values under the hash of their content: what is too large for a message travels as a reference.

Knows no Celery: `morango_celery.payload_task` puts the arguments of tasks in here.
"""

from morango_celery.payloads.backend import Backend, Pruned
from morango_celery.payloads.chosen import payload_store
from morango_celery.payloads.reference import Reference
from morango_celery.payloads.store import PayloadStore

__all__ = ["Backend", "PayloadStore", "Pruned", "Reference", "payload_store"]
