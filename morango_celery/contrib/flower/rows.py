"""Results of tasks as Flower shows them."""

from __future__ import annotations

import ast

OURS = "morango_celery."


def result_text(name: str | None, result: str | None, exception: str | None) -> str | None:
    """Return a result's text: the reason of a failure or retry, or a batch's counts ("1,990 saved").

    :param name: the task's name
    :param result: the representation of the task's result. A long one is cut off, as other tasks' are.
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
