"""Speed and memory beside Morango's own functions: ``make bench``, or ``python -m bench --help``.

``scenarios.py`` lists everything that is measured, and the thresholds that it has to meet; ``small_syncs.py``
lists the scenarios of small syncs. ``scenario.py`` has their type. In a scenario, two implementations do the
same work by turns, each in a fresh process on a fresh copy of the same database.

- Data: ``data.py`` and ``kolibri.py`` make records up, ``syncs.py`` and ``kolibri_syncs.py`` those of many
  small syncs. ``cases.py`` has the names of these cases. ``load.py`` fills databases, ``databases.py`` copies
  them.
- Implementations: ``implementations.py`` lists them. ``workers.py`` adds Celery and Redis, and ``sql.py``
  leaves Python out. ``stage.py`` is a sync's whole stage, ``fleet.py`` many syncs at once, ``pool.py`` the
  same by Morango, and ``facility.py`` small syncs beside a large one. ``work.py`` is their common type.
  ``over_http.py`` has real Kolibri servers, timed by ``relay.py``.
- Measuring: ``measure.py`` is the process that measures, ``measurement.py`` its order and its answer.
  ``counting.py`` counts statements, ``processes.py`` reads memory, ``machine.py`` describes the machine.
- Results: ``schedule.py`` takes the turns, ``results.py`` calculates figures, ``report.py`` prints them and
  ``plot.py`` draws them. They are written to ``results.json``, and the picture to ``results.png``.

``simulate.py`` and ``simulation/`` model clusters that don't fit on one machine.

A further scenario is a line in ``scenarios.py``; other work also takes an implementation, and its records.
"""
