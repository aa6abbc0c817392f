"""Speed and memory beside Morango's own functions: ``make bench``, or ``python -m bench --help``.

``rows.py`` says what is measured and the bars that it has to meet, ``small_syncs.py`` the same of small
syncs, and ``row.py`` what a row is. For each row, two sides do the same work by turns, each in a fresh
process on a fresh copy of the same database.

- what they work on: ``data.py`` and ``kolibri.py`` make records up, ``syncs.py`` and ``kolibri_syncs.py``
  those of many small syncs, whose names are in ``cases.py``; ``load.py`` fills databases with them,
  ``databases.py`` copies those
- who works: ``sides.py``, with Celery and Redis in ``workers.py`` and without Python in ``sql.py``; a sync's
  whole stage in ``stage.py``, many at once in ``fleet.py``, by Morango's in ``pool.py``, and small ones
  beside a large one in ``facility.py``; ``work.py`` is what they have in common. Real servers of Kolibri's
  are in ``over_http.py``, timed by ``relay.py``
- what is measured: ``measure.py`` is the process that does it, ``measurement.py`` what it is told and tells,
  ``counting.py`` its statements, ``processes.py`` its memory, ``machine.py`` where it runs
- what comes of it: ``rounds.py`` takes the turns, ``results.py`` makes figures of them, ``report.py`` prints
  and ``plot.py`` draws them; they are written to ``results.json``, and the picture to ``results.png``

What can't be measured on one machine is modelled: ``simulate.py`` and ``simulation/``.

A further row needs a line in ``rows.py``; for other work, also a side, and records that it works on.
"""
