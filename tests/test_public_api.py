"""The public API is what stands in `public_api.txt`: names, parameters, defaults, commands and their options.

A change of it is a decision, see "What users can rely on" in CONTRIBUTING.md. `python tests/test_public_api.py` writes
the file again. Types are not in it: they depend on the version of Python, and type checkers know them.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import pathlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

import keras_initkit
from keras_initkit.cli._parser import make_parser

FILE = pathlib.Path(__file__).with_name("public_api.txt")
OPERATORS = {"__call__", "__contains__", "__getitem__", "__iter__", "__len__"}

pytestmark = pytest.mark.one_backend


def public_api() -> Iterator[str]:
    """The lines of `public_api.txt`."""
    folders = [each.name for each in pkgutil.iter_modules(keras_initkit.__path__) if not each.name.startswith("_")]
    homes = {}
    for module in [importlib.import_module(f"keras_initkit.{name}") for name in sorted(folders)]:
        for name in getattr(module, "__all__", ()):
            homes.setdefault(id(getattr(module, name)), f"{module.__name__}.{name}")
    for module in [keras_initkit, *(importlib.import_module(f"keras_initkit.{name}") for name in sorted(folders))]:
        yield f"{module.__name__}:"
        for name in sorted(set(getattr(module, "__all__", ())) - set(folders)):
            value = getattr(module, name)
            home = homes.get(id(value), f"{module.__name__}.{name}")
            yield from describe(name, value) if home == f"{module.__name__}.{name}" else [f"    {name} = {home}"]
    for name, command in subcommands(make_parser()).items():
        yield f"keras-initkit {name}:"
        for action in sorted(command._actions, key=lambda each: each.option_strings):
            default = "" if action.default is None or action.default is False else f" = {action.default}"
            if action.dest != "help":
                yield f"    {', '.join(action.option_strings) or action.dest}{default}"


def describe(name: str, value: Any) -> Iterator[str]:
    """A line for a public value, and for a class one for each of its members that is no argument too."""
    if inspect.isclass(value):
        made_by_users = not (getattr(value, "_is_protocol", False) or issubclass(value, Exception))
        yield f"    class {name}{parameters(value) if made_by_users else ''}"
        arguments = inspect.signature(value).parameters if made_by_users else ()
        for member, found in sorted(members(value).items()):
            if isinstance(found, classmethod | staticmethod) or callable(found):
                yield f"        {member}{parameters(getattr(found, '__func__', found))}"
            elif member not in arguments:
                yield f"        {member}"
    elif callable(value) and not get_args(value):
        yield f"    {name}{parameters(value)}"
    elif isinstance(value, tuple) or get_args(value):
        yield f"    {name}: {', '.join(map(str, get_args(value) or value))}"
    elif isinstance(value, dict):  # without what a user has registered
        yield f"    {name}: {', '.join(key for key, each in value.items() if is_ours(each))}"
    else:
        yield f"    {name}: {type(value).__name__}"


def members(cls: type) -> dict[str, Any]:
    """What a class offers by its own name: not what a class of Python or Keras below it defines too."""
    ours = [base for base in cls.__mro__ if is_ours(base)]
    others = {name for base in cls.__mro__ if base not in ours for name in vars(base)}
    names = {name for base in ours for name in vars(base) if not name.startswith("_") or name in OPERATORS}
    return {name: inspect.getattr_static(cls, name) for name in names - others}


def is_ours(value: Any) -> bool:
    return value.__module__.startswith("keras_initkit")


def parameters(value: Any) -> str:
    """The signature without types; a function or an object as a default by its name."""
    signature = inspect.signature(value)
    plain = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r"<(?:function |class ')?([\w.]+)[^<>]*>", r"\1", text)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command of the command line."""
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return commands.choices


def test_the_public_api_is_what_is_written_down():
    written, found = FILE.read_text(encoding="utf-8").splitlines(), list(public_api())
    difference = "\n".join(difflib.unified_diff(written, found, "public_api.txt", "the package", lineterm="", n=1))
    assert not difference, f"If this is meant: python {pathlib.Path(__file__).name}, and CHANGELOG.md.\n{difference}"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("probe(model, ", "probe(model, extra=1, ", "extra=1"),
        ("    verify", "    verified", "verified"),
        ("--seed", "--sow", "--sow"),
    ],
)
def test_a_change_is_noticed(old, new, line, monkeypatch, tmp_path):
    changed = tmp_path / "public_api.txt"
    changed.write_text(FILE.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    monkeypatch.setattr(f"{__name__}.FILE", changed)
    with pytest.raises(AssertionError, match=line):
        test_the_public_api_is_what_is_written_down()


if __name__ == "__main__":
    FILE.write_text("\n".join(public_api()) + "\n", encoding="utf-8")
