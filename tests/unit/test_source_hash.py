"""Hashes of the source of code: the text is that of ``inspect``, found without a look at all modules."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from morango_celery.equivalents import UnknownCodeError, source_hash

MODULE = '''
"""Text with a line that looks like a class.

class Named:
"""

@decorator
class Decorated:
    def method(self):
        return 1


@decorator(
    1,
)
# between
class DecoratedLines:
    value = 1


class Named:
    """Twice in this file."""

    def method(self):
        return [
            2,
        ]
    # its last line


class Plain(Named): value = 3
if True:
    class Indented:
        value = 4
'''


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    path = tmp_path / "described.py"
    path.write_text(MODULE, encoding="utf-8")
    made = ModuleType("described")
    made.__file__ = str(path)
    made.__dict__["decorator"] = lambda given: given if isinstance(given, type) else lambda cls: cls
    exec(compile(MODULE, str(path), "exec"), vars(made))
    return made


@pytest.mark.parametrize("name", ["Decorated", "DecoratedLines", "Named", "Plain", "Indented"])
def test_class_has_the_source_that_inspect_finds(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "described", module)
    path = f"described.{name}"
    said = f"{path}\n{inspect.getsource(getattr(module, name))}\n"
    assert source_hash(object, [path]) == hashlib.sha256(said.encode()).hexdigest()


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Owner:
    def plain(self) -> list[int]:
        return [
            1,
        ]

    @_decorated
    def wrapped(self) -> int:
        return 2

    @classmethod
    def of_class(cls) -> int:
        return 3


@pytest.mark.parametrize("name", ["plain", "wrapped", "of_class"])
def test_method_has_the_source_of_the_code_that_runs(name: str) -> None:
    found = vars(Owner)[name]
    code = getattr(found, "__func__", found).__code__
    said = f"{name}\n{inspect.getsource(code)}\n"
    assert ("def wrapper" in said) is (name == "wrapped")
    assert source_hash(Owner, [name]) == hashlib.sha256(said.encode()).hexdigest()


def test_code_without_a_file_has_no_hash() -> None:
    made: dict[str, Any] = {}
    exec(compile("def method(self): pass", "<made up>", "exec"), made)
    owner = type("Owner", (), {"method": made["method"]})
    with pytest.raises(UnknownCodeError) as caught:
        source_hash(owner, ["method"])
    assert str(caught.value) == "The source of Owner.method can't be read: no line 1 in <made up>."
