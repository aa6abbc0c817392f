"""Try the plug-in in Kolibri servers: ``python -m tests.kolibri.plug_in [--help]``."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp

from tests.kolibri import environment
from tests.kolibri.plug_in.installation import ENVIRONMENT
from tests.kolibri.plug_in.scenarios import SCENARIOS, Scenario
from tests.kolibri.plug_in.stage import Stage
from worker import services

ENGINES = ("postgresql", "sqlite")


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the scenarios, print their results, and return the exit status: 0 if all went well."""
    chosen = _parse(arguments)
    environment.main(ENVIRONMENT, as_shipped=True)
    folder = Path(mkdtemp(prefix="morango-celery-kolibri-"))
    started = time.monotonic()
    failed = [scenario for engine in ENGINES for scenario in _play(engine, chosen, folder)]
    seconds = time.monotonic() - started
    if failed:
        names = ", ".join(scenario.name for scenario in failed)
        print(f"\nNOT AS KOLIBRI: {names} ({seconds:.0f} s); logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    print(f"\nall is as in Kolibri without the plug-in ({seconds:.0f} s)")
    return 0


def _play(engine: str, chosen: Sequence[Scenario], folder: Path) -> list[Scenario]:
    """Play the scenarios on that kind of database, and return those that failed."""
    scenarios = [scenario for scenario in chosen if scenario.engine == engine]
    if not scenarios:
        return []
    failed = []
    with ExitStack() as stack:
        url = stack.enter_context(services.start_postgres()) if engine == "postgresql" else ""
        print(f"{engine}: setting up a server, and a device that syncs with it ...", flush=True)
        stage = Stage(engine, folder, url)
        for scenario in scenarios:
            began = time.monotonic()
            try:
                told = scenario.play(stage)
            except Exception:  # whatever it is, the others are played all the same
                told = f"FAILED\n{traceback.format_exc()}"
                failed.append(scenario)
            print(f"{engine} {scenario.name}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    return failed


def _parse(arguments: Sequence[str] | None) -> list[Scenario]:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.kolibri.plug_in",
        description=__doc__,
        epilog="scenarios:\n" + "\n".join(f"  {s.name:<20} {s.about}" for s in SCENARIOS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=names,
        metavar="NAME",
        help="only this one (may be repeated)",
    )
    options = parser.parse_args(arguments)
    return [scenario for scenario in SCENARIOS if scenario.name in (options.scenario or names)]


if __name__ == "__main__":
    sys.exit(main())
