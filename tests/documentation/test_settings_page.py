"""docs/settings.md has what conf.py has."""

from __future__ import annotations

from tests.documentation import settings_page


def test_the_page_is_what_conf_py_says() -> None:
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.written(), "run `make docs`"
