"""docs/how-to/log.md has each logger of the package."""

from __future__ import annotations

import re

from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "how-to" / "log.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .*? \|", PAGE, re.MULTILINE)
PACKAGE = ROOT / "morango_celery"


def test_the_page_has_each_module_that_logs_and_no_other() -> None:
    listed = {name for row in ROWS for name in re.findall(r"`(morango_celery[\w.]*)`", row)}
    logging = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if "logging.getLogger(__name__)" in path.read_text(encoding="utf-8")
    }

    assert {name for name in logging if not any(f"{name}.".startswith(f"{row}.") for row in listed)} == set()
    assert {row for row in listed if not any(f"{name}.".startswith(f"{row}.") for name in logging)} == set()
