"""The admin's page about models: the same as the command, for whoever may view runs."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from morango_celery.explanation import explain
from morango_celery.explanation.wording import code_text, statements_in_short, way
from morango_celery.upstream import profiles
from tests.integration.admin_pages import RUNS, shown, text_of
from tests.support.operators import LOOK, logged_in

pytestmark = pytest.mark.django_db

PAGE = f"{RUNS}models/"


def rows_of(page: str) -> list[list[str]]:
    """Return the cells of the tables' rows, without their markup."""
    bodies = "".join(re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL))
    rows = re.findall(r"<tr>(.*?)</tr>", bodies, re.DOTALL)
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows)
    return [[re.sub(r"<[^>]*>", "", cell).strip() for cell in row] for row in cells]


def test_page_has_each_model_in_foreign_key_order_with_its_way(admin_client: Client) -> None:
    page = admin_client.get(PAGE).content.decode()
    explained = [each for profile in profiles() for each in explain(profile)]
    assert [(row[0], row[1], row[2], row[4]) for row in rows_of(page)] == [
        (str(each.stage), each.label, way(each), statements_in_short(each)) for each in explained
    ]


def test_page_says_why_a_model_is_slow_and_the_remedy(admin_client: Client) -> None:
    page = admin_client.get(PAGE).content.decode()
    for each in explain("model_zoo"):
        section = text_of('<div class="main' + page.partition(f'id="{each.label}"')[2].partition("<div ")[0])
        if each.is_on_fast_path:
            assert f'href="#{each.label}"' not in page
            continue
        assert f'href="#{each.label}"' in page
        for reason in each.reasons:
            assert reason.text in section
            for code in reason.code:
                assert " ".join(code_text(code).split()) in section
        for advice in each.advice:
            assert advice in section


def test_page_runs_as_many_statements_as_one_without_content(admin_client: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        admin_client.get(PAGE)
    tables = set(re.findall(r'FROM "(\w+)"', " ".join(query["sql"] for query in queries)))
    assert tables == {"django_session", "school_account"}


def test_list_of_runs_leads_to_the_page_and_back(admin_client: Client) -> None:
    assert f'<a href="{PAGE}">How models are handled</a>' in admin_client.get(RUNS).content.decode()
    assert f'<a href="{RUNS}">Runs</a>' in admin_client.get(PAGE).content.decode()


def test_page_is_for_those_who_may_view_runs() -> None:
    assert "How models are handled" in shown(logged_in("guest", LOOK), PAGE)
    assert logged_in("stranger", ("view_deadletter",)).get(PAGE).status_code == 403
    assert Client().get(PAGE).status_code == 302


def test_page_works_where_inline_scripts_and_styles_are_forbidden(admin_client: Client) -> None:
    main = admin_client.get(PAGE).content.decode().partition('<div id="content-main">')[2]
    assert main
    assert not re.search(r"<style|<script|\sstyle=|\son\w+=|javascript:", main)
