"""The profiles of the hosts' models."""

from __future__ import annotations

PROFILES = {"school": "school", "kolibri": "facilitydata"}
