"""Parity on Kolibri's real models: the same Store rows through Morango's own function and through ours.

``make kolibri`` runs it in an environment of its own (``environment.py``); nothing here is collected by
``make test`` but ``test_verdict.py``, which needs no Kolibri.
"""
