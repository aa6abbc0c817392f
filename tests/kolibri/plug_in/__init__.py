"""The plug-in in real Kolibri servers, beside ones without it: the same sync, and the same rows afterwards.

``make kolibri ARGS=--plug-in`` runs it. Kolibri's processes run in an environment where it is installed as
its users have it, with all that its wheel brings along.
"""
