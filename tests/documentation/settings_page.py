"""Generator of docs/reference/settings.md from the docstrings in the modules ``conf``.

Python doesn't keep docstrings of attributes, so the module's text is read.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from morango_celery import conf as core
from morango_celery.oplog import conf as oplog
from morango_celery.payloads import conf as payloads
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "reference" / "settings.md"

INTRODUCTION = """\
# Settings

<!-- `make docs` writes this page from morango_celery/conf.py, and conf.py of oplog and payloads. -->

A dict in Django's settings for each of the apps. All keys are optional, and those of Morango and Celery go
beside them:

```python
MORANGO_CELERY = {
    "MODE": "await",
    "BATCH_SIZE_RECORDS": 2000,
}
```

The others are `MORANGO_CELERY_OPLOG` and `MORANGO_CELERY_PAYLOADS`. They are read whenever they are needed.
An unknown key or an unusable value is refused by `manage.py check` (`E001` in
[checks.md](../reference/checks.md)), and, in `MORANGO_CELERY`, whenever a run is asked for. Web
processes and workers should have the same.
"""

CHAPTERS = {
    core: ("Runs: MORANGO_CELERY", ""),
    oplog: (
        "The log of another project: MORANGO_CELERY_OPLOG",
        "Of the app `morango_celery.oplog`; [oplog.md](../how-to/oplog.md) explains it.",
    ),
    payloads: (
        "Large arguments: MORANGO_CELERY_PAYLOADS",
        "Of the app `morango_celery.payloads`; [payloads.md](../how-to/payloads.md) explains it.",
    ),
}
"""The modules with sections, and the title and the first words of their chapter."""


class Setting(NamedTuple):
    name: str
    default: str
    rule: str
    meaning: str

    @property
    def row(self) -> str:
        rule = self.rule.removeprefix("must be ")
        return f'| <a id="{self.name}"></a>`{self.name}` | `{self.default}` | {rule} | {self.meaning} |'


def documented_settings(module: Any) -> Iterator[Setting]:
    """Each key that there is in a module's section, in the module's order.

    :raises LookupError: one has no docstring, or no rule
    """
    section = type(module.settings)
    (tree,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(tree, ast.ClassDef)
    for node, next_node in zip(tree.body, tree.body[1:], strict=False):
        if not isinstance(node, ast.AnnAssign):
            continue
        assert isinstance(node.target, ast.Name)
        assert node.value is not None
        name = node.target.id
        match next_node:
            case ast.Expr(value=ast.Constant(value=str(docstring))):
                meaning = " ".join(docstring.split()).replace("``", "`")
            case _:
                raise LookupError(f"{name} has no docstring")
        # A product says more than its value: 64 * 1024 * 1024
        is_product = isinstance(node.value, ast.BinOp)
        default = ast.unparse(node.value) if is_product else repr(vars(section)[name])
        yield Setting(name, default, section._RULES[name][1], meaning)


def written() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for module, (title, opening) in CHAPTERS.items():
        rows = [setting.row for setting in documented_settings(module)]
        table = ["| key | default | has to be | |", "|---|---|---|---|", *rows]
        parts.append("\n\n".join(filter(None, [f"## {title}", opening, "\n".join(table)])) + "\n")
    return "\n".join(parts)


def main() -> None:
    PAGE.write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
