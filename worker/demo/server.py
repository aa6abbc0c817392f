"""Preparation of the server: its tables, the school's certificate, and the account that may sign others."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from django.core.management import call_command
from morango.models import Certificate

from worker.demo.device import SCOPE
from worker.school.models import Account


@dataclass(frozen=True)
class Access:
    """Data by which a device joins."""

    school_id: str
    account: str
    password: str


def create_tables() -> None:
    call_command("migrate", verbosity=0, interactive=False)


def found_school() -> Access:
    """Create the school's root certificate, and the account that may sign others."""
    call_command("loaddata", "scopedefinitions", verbosity=0)
    root = Certificate.generate_root_certificate(SCOPE)
    account = Account(username="head", is_superuser=True)
    password = secrets.token_urlsafe(16)
    account.set_password(password)
    account.save()
    return Access(school_id=root.id, account=account.username, password=password)
