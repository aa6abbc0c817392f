"""The database's roles, by the deployment kit's own statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from django.db import connection

from morango_celery.contrib.deployment import kit

MIGRATION, APPLICATION, MONITORING = "morango_migration", "morango_application", "morango_monitoring"
ROLES = (MIGRATION, APPLICATION, MONITORING)
GRANTS = kit.text("grants.sql")


@contextmanager
def roles() -> Iterator[None]:
    """Set up the roles in the test database; take them away afterwards, and what they own back."""
    execute(GRANTS)
    try:
        yield
    finally:
        owner = connection.settings_dict["USER"]
        execute(f'REASSIGN OWNED BY {MIGRATION} TO "{owner}"')
        for role in ROLES:
            execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def execute(statements: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statements)


def as_role(url: str, role: str, password: str = "") -> str:
    """Return a DATABASE_URL with another login."""
    parts = urlsplit(url)
    login = f"{role}:{password}" if password else role
    return parts._replace(netloc=f"{login}@{parts.hostname}:{parts.port}").geturl()
