"""docs/settings.md, from what ``morango_celery/conf.py`` says of each setting.

A docstring of an attribute is nothing that Python keeps, so the module's text is read.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import NamedTuple

from morango_celery import conf
from tests.processes import ROOT

PAGE = ROOT / "docs" / "settings.md"

INTRODUCTION = """\
# Settings

<!-- `make docs` writes this page from morango_celery/conf.py. -->

One dict in Django's settings. All keys are optional, and those of Morango and Celery go beside it:

```python
MORANGO_CELERY = {
    "MODE": "await",
    "BATCH_SIZE_RECORDS": 2000,
}
```

They are read whenever they are needed. An unknown key or an unusable value is refused by `manage.py check`
(`E001` in [operations.md](operations.md#system-checks)), and whenever a run is asked for. Web processes and
workers should have the same.
"""

CHAPTERS = {
    "": ("Runs", ""),
    "OPLOG_": ("The log of another project", "[oplog.md](oplog.md) says what these are for."),
    "PAYLOAD_": ("Large arguments", "[payloads.md](payloads.md) says what these are for."),
}
"""What names begin with, and the title and the first words of their chapter."""


class Setting(NamedTuple):
    name: str
    default: str
    rule: str
    meaning: str

    @property
    def prefix(self) -> str:
        return next((prefix for prefix in CHAPTERS if prefix and self.name.startswith(prefix)), "")

    @property
    def row(self) -> str:
        rule = self.rule.removeprefix("must be ")
        return f'| <a id="{self.name}"></a>`{self.name}` | `{self.default}` | {rule} | {self.meaning} |'


def documented_settings() -> Iterator[Setting]:
    """Each key that there is, in the module's order.

    :raises LookupError: one has no docstring, or no rule
    """
    (tree,) = ast.parse(inspect.getsource(type(conf.settings))).body
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
                raise LookupError(f"{name} has no docstring in conf.py")
        # A product says more than its value: 64 * 1024 * 1024
        is_product = isinstance(node.value, ast.BinOp)
        default = ast.unparse(node.value) if is_product else repr(vars(type(conf.settings))[name])
        yield Setting(name, default, conf._RULES[name][1], meaning)


def written() -> str:
    """The whole page."""
    settings = list(documented_settings())
    parts = [INTRODUCTION]
    for prefix, (title, opening) in CHAPTERS.items():
        rows = [setting.row for setting in settings if setting.prefix == prefix]
        table = ["| key | default | has to be | |", "|---|---|---|---|", *rows]
        parts.append("\n\n".join(filter(None, [f"## {title}", opening, "\n".join(table)])) + "\n")
    return "\n".join(parts)


def main() -> None:
    PAGE.write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
