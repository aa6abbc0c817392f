"""A discrete-event model of clusters that don't fit on one machine: many workers, many syncs, one PostgreSQL.

- ``demands.py``: a run's demands on workers and on the database; measured by ``probe.py``, or given
- ``mix.py``: sizes and arrival times of syncs
- ``broker.py``: the choice of the next message, by the rules of ``morango_celery.worker.priorities``
- ``model.py``: workers that alternate between their own work and the database's
- ``picture.py``: a drawing of the results

``python -m bench.simulate`` runs it.
"""
