"""The implementations that store values and read them: which sizes, which stores. No Django in here."""

from __future__ import annotations

SIZES = {"1KiB": 2**10, "64KiB": 2**16, "1MiB": 2**20, "10MiB": 10 * 2**20}
"""Sizes of a value, in bytes."""
OPERATIONS = ("put", "get")
KINDS = ("redis", "sqlite", "memory")
"""Kinds of backends."""


def implementation_name(operation: str, size: str, store: str) -> str:
    """:param store: "payloads-redis", "pynenc-redis" and so on"""
    return f"{operation}-{size}:{store}"
