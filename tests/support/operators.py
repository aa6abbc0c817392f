"""Accounts that may look at the admin's pages, or do more."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

PASSWORD = "a dummy: password, of all signs"
LOOK = ("view_run", "view_batch", "view_comparison", "view_pause", "view_recordinerror", "view_deadletter")
OPERATE = (*LOOK, "change_run")


def make_account(name: str, codenames: tuple[str, ...]) -> Any:
    account = get_user_model().objects.create_user(name, password=PASSWORD, is_staff=True)
    permissions = Permission.objects.filter(
        codename__in=codenames, content_type__app_label__in=("morango_celery", "morango_celery_oplog")
    )
    assert permissions.count() == len(codenames)
    account.user_permissions.set(permissions)
    return account


def logged_in(name: str, codenames: tuple[str, ...]) -> Client:
    client = Client()
    client.force_login(make_account(name, codenames))
    return client
