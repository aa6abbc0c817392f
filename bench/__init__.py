"""Speed and memory beside Morango's own functions: ``make bench``, or ``python -m bench --help``.

``rows.py`` says what is measured and the bars that it has to meet. For each row, two sides (``sides.py``:
ours, Morango's, the bare SQL) do the same work by turns, each in a fresh process (``measure.py``) on a fresh
copy of the same database (``databases.py``, filled by ``load.py`` with what ``data.py`` makes up).
``rounds.py`` takes the turns, ``results.py`` makes figures of them; they are printed (``report.py``), written
to ``bench/results.json``, and drawn (``plot.py``).
"""
