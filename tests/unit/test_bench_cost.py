"""The table of processor time, and the account behind it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pytest

from bench.cost import AT_ONCE, account, table


def test_table_has_each_process_and_the_sum() -> None:
    found = {"fleet": {"this process": 1.25, "Redis": 0.5}, "morango-fleet": {"this process": 4.0}}

    lines = table(found, AT_ONCE).splitlines()

    assert [line.split()[-2:] for line in lines] == [
        ["workers", "Morango"],
        ["1.2", "4.0"],
        ["0.5", "0.0"],
        ["1.8", "4.0"],
    ]


def test_account_has_the_time_of_this_process() -> None:
    before = account("no such database", None)
    while sum(os.times()[:2]) < before["this process"] + 0.1:
        sum(range(10_000))

    assert account("no such database", None)["this process"] >= before["this process"] + 0.05


def test_account_has_the_redis_of_its_port_alone(redis_url: str) -> None:
    port = urlsplit(redis_url).port
    assert port is not None

    assert "Redis" in account("no such database", port)
    assert "Redis" not in account("no such database", port + 1)


@pytest.mark.needs_postgresql
def test_account_has_the_sessions_of_its_database_alone(transactional_db: None) -> None:
    from django.db import connection

    connection.ensure_connection()

    assert "PostgreSQL's sessions" in account(connection.settings_dict["NAME"], None)
    assert "PostgreSQL's sessions" not in account("no such database", None)
