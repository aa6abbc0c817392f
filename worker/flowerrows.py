"""What Flower shows as a task's result."""

from __future__ import annotations

import ast

OURS = "morango_celery."


def result_text(name: str | None, result: str | None, exception: str | None) -> str | None:
    """Of our tasks, why one failed or is retried, or the counts of a batch: "1,990 saved, 10 failed".

    :param name: the task's
    :param result: the representation of what it returned, cut off if it is long, as are all others' here
    """
    if not (name or "").startswith(OURS):
        return result
    if not result:
        return exception
    try:
        value = ast.literal_eval(result)
    except (ValueError, SyntaxError):  # not a representation: progress
        return result
    if isinstance(value, dict):
        return ", ".join(f"{count:,} {what}" for what, count in value.items() if count) or "nothing to do"
    return str(value)
