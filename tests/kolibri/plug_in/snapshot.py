"""A Kolibri's database as a file: ``python -m tests.kolibri.plug_in.snapshot FILE``, in its environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kolibri.utils.main import initialize

if __name__ == "__main__":
    initialize(skip_update=True)
    from kolibri.core.auth.constants.morango_sync import PROFILE_FACILITY_DATA

    from tests.kolibri.models import model_facts
    from tests.support.dump import dump

    found = {"tables": dump(), "models": model_facts(PROFILE_FACILITY_DATA)}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
