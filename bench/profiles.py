"""The hosts' names that matter elsewhere, and the profiles of their models."""

from __future__ import annotations

OVER_HTTP = "kolibri_server"
"""Real Kolibri servers; see ``bench.over_http``."""

PROFILES = {"school": "school", "kolibri": "facilitydata", OVER_HTTP: "facilitydata"}
