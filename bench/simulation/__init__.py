"""A discrete-event model of what can't be measured on one machine: many workers, many syncs, one PostgreSQL.

- ``demands.py``: what a run takes of workers and of the database; measured by ``probe.py``, or given
- ``mix.py``: how large syncs are, and when they come
- ``broker.py``: whose message is next, by the rule of ``morango_celery.worker.priorities``
- ``model.py``: workers that take turns at their own work and at the database's
- ``picture.py``: what comes of it, drawn

``python -m bench.simulate`` runs it.
"""
