"""Lines of the log carry the run, batch, attempt and model that they are about."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from typing_extensions import override

from morango_celery.log_context import ContextFilter, bound, get_logger

NAME = "tests.log_context"
logger = get_logger(NAME)


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def lines() -> Iterator[Recorder]:
    recorder, plain = Recorder(), logging.getLogger(NAME)
    plain.addHandler(recorder)
    plain.setLevel(logging.INFO)
    yield recorder
    plain.removeHandler(recorder)


def test_line_has_its_context_as_fields_and_at_its_end(lines: Recorder) -> None:
    with bound(model="unit", run=12), bound(batch="3/17", attempt=2):
        logger.warning("%s of %s failed.", 2, 500)

    (record,) = lines.records
    assert record.getMessage() == "2 of 500 failed. [run 12, batch 3/17, attempt 2, model unit]"
    assert {name: vars(record)[name] for name in ("run", "batch", "attempt", "model")} == {
        "run": 12,
        "batch": "3/17",
        "attempt": 2,
        "model": "unit",
    }


def test_line_outside_of_the_block_has_no_context(lines: Recorder) -> None:
    with bound(run=12):
        pass
    logger.warning("100%")

    assert lines.texts == ["100%"]
    assert not hasattr(lines.records[0], "run")


def test_text_with_a_percent_sign_stays_as_it_is(lines: Recorder) -> None:
    with bound(run=12):
        logger.warning("100% are done")

    assert lines.texts == ["100% are done [run 12]"]


def test_field_of_one_line_replaces_the_bound_one_and_none_takes_it_away(lines: Recorder) -> None:
    with bound(run=12, batch="3/17", model="unit"):
        logger.warning("one", extra={"model": "learner"})
        with bound(batch=None, model=None):
            logger.warning("two")

    assert lines.texts == ["one [run 12, batch 3/17, model learner]", "two [run 12]"]
    assert not hasattr(lines.records[1], "batch")


def test_control_characters_of_fields_are_escaped(lines: Recorder) -> None:
    logger.warning("It failed.", extra={"model": "unit\nforged\x1b[0m"})

    (record,) = lines.records
    assert record.getMessage() == "It failed. [model unit\\nforged\\x1b[0m]"
    assert vars(record)["model"] == "unit\\nforged\\x1b[0m"


def test_line_is_attributed_to_the_function_that_logs_it(lines: Recorder) -> None:
    logger.warning("one")
    try:
        raise ValueError
    except ValueError:
        logger.exception("two")

    assert [record.funcName for record in lines.records] == [
        "test_line_is_attributed_to_the_function_that_logs_it"
    ] * 2
    assert lines.records[1].exc_info is not None


def test_line_below_the_level_is_not_logged(lines: Recorder) -> None:
    logger.debug("one")

    assert lines.texts == []


def test_filter_adds_the_context_to_lines_of_other_loggers_and_keeps_their_fields(lines: Recorder) -> None:
    lines.addFilter(ContextFilter())
    other = logging.getLogger(f"{NAME}.other")
    with bound(run=12, model="unit"):
        other.warning("one", extra={"model": "its own"})
    other.warning("two")

    one, two = lines.records
    assert (vars(one)["run"], vars(one)["model"]) == (12, "its own")
    assert not hasattr(two, "run")
