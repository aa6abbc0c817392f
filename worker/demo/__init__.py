"""A sync between two Morango instances on this machine, deserialized by real workers, and checked.

``python -m worker.demo --records 20000``
"""

FEWEST_RECORDS = 100
"""Least number of records: a few of each model, and a few to break."""
