"""What Flower shows of a task's result."""

from __future__ import annotations

import ast


def readable(result: object) -> object:
    """The counts of a batch as "1,990 saved, 10 failed"; anything else as it is.

    :param result: what the event of a task's success brought, the representation of what it returned
    """
    if not isinstance(result, str) or not result.startswith("{"):
        return result.strip("'") if isinstance(result, str) else result
    try:
        counts = ast.literal_eval(result)
    except (ValueError, SyntaxError):  # of a task of others, cut off perhaps
        return result
    if not all(isinstance(count, int) for count in counts.values()):
        return result
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing to do"
