"""docs/how-to/log.md has each logger of the package, and examples that work."""

from __future__ import annotations

import io
import json
import logging
import re
from logging.config import DictConfigurator
from typing import Any

from celery.signals import setup_logging
from django.test import RequestFactory

from morango_celery.log_context import bound, get_logger
from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "how-to" / "log.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .*? \|", PAGE, re.MULTILINE)
PACKAGE = ROOT / "morango_celery"
GETS_LOGGER = re.compile(r"\b(logging\.getLogger|get_logger)\(__name__\)")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_has_each_module_that_logs_and_no_other() -> None:
    listed = {name for row in ROWS for name in re.findall(r"`(morango_celery[\w.]*)`", row)}
    logging = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if GETS_LOGGER.search(path.read_text(encoding="utf-8"))
    }

    assert {name for name in logging if not any(f"{name}.".startswith(f"{row}.") for row in listed)} == set()
    assert {row for row in listed if not any(f"{name}.".startswith(f"{row}.") for name in logging)} == set()


def executed(example: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Execute an example of the page, and return the names that it defines."""
    defined = {} if names is None else names
    exec(compile(example, "log.md", "exec"), defined)
    return defined


def test_example_of_json_writes_the_context_as_keys() -> None:
    configurator: Any = DictConfigurator(executed(EXAMPLES[0])["LOGGING"])
    config = configurator.config
    config["formatters"]["json"] = configurator.configure_formatter(config["formatters"]["json"])
    config["filters"]["context"] = configurator.configure_filter(config["filters"]["context"])
    handler = configurator.configure_handler(config["handlers"]["stderr"])
    written = handler.stream = io.StringIO()
    ours, other = get_logger("tests.log_page.ours"), logging.getLogger("tests.log_page.other")
    plain = logging.getLogger("tests.log_page")
    plain.addHandler(handler)
    try:
        with bound(run=12, batch="3/17", attempt=1, model="unit"):
            ours.warning("It has %s\nlines.", 2)
            other.warning("of a model's code")
    finally:
        plain.removeHandler(handler)

    context = {"run": 12, "batch": "3/17", "attempt": 1, "model": "unit"}
    first, second = map(json.loads, written.getvalue().splitlines())
    assert context.items() <= first.items()
    assert (first["levelname"], first["name"]) == ("WARNING", "tests.log_page.ours")
    assert first["message"] == "It has 2\nlines. [run 12, batch 3/17, attempt 1, model unit]"
    assert {**context, "message": "of a model's code"}.items() <= second.items()


def test_example_keeps_celery_from_configuring_logs() -> None:
    before = list(setup_logging.receivers)
    try:
        names = executed(EXAMPLES[1])

        assert any(
            reference() is names["leave_logging_to_django"] for _, reference in setup_logging.receivers
        )
    finally:
        setup_logging.receivers = before


def test_example_that_silences_lines_is_a_valid_configuration() -> None:
    names = executed(EXAMPLES[2], executed(EXAMPLES[0]))
    loggers = names["LOGGING"]["loggers"]

    assert set(loggers) == {"morango_celery.runs", "celery.app.trace"}
    assert all(isinstance(getattr(logging, each["level"]), int) for each in loggers.values())


def test_example_of_a_filter_leaves_out_health_checks_alone() -> None:
    config = executed(EXAMPLES[3], executed(EXAMPLES[2], executed(EXAMPLES[0])))["LOGGING"]
    (name,) = config["loggers"]["django.request"]["filters"]
    chosen = DictConfigurator({"version": 1}).configure_filter(dict(config["filters"][name]))

    def is_shown(**extra: Any) -> bool:
        return bool(chosen.filter(logging.makeLogRecord(extra)))

    paths = ("/healthz", "/admin/")
    assert [is_shown(request=RequestFactory().get(path)) for path in paths] == [False, True]
    assert is_shown()
