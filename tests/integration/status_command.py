"""`deserialize_status` in this process."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from django.core.management import CommandError, call_command


def shown(*arguments: str) -> tuple[int, str]:
    """Return the command's exit status, and its output."""
    out = StringIO()
    try:
        call_command("deserialize_status", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    except CommandError as error:
        code: int = error.returncode  # type: ignore[attr-defined]  # its stubs don't know it
        return code, str(error)
    return 0, out.getvalue()


def told(*arguments: str) -> Any:
    """Return the object that the command writes."""
    return json.loads(shown("--json", *arguments)[1])
