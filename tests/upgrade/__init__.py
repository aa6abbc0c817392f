"""Upgrades while syncs go on: workers, servers and commands of two neighbouring versions side by side.

`make upgrade` runs these tests. `make test` leaves them out, since they take minutes and need the
repository's history.
"""
