"""docs/reference/settings.md is generated from conf.py."""

from __future__ import annotations

from tests.documentation import settings_page


def test_settings_page_matches_conf() -> None:
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.written(), "run `make docs`"
