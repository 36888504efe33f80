"""The command `keras-initkit`: reads its arguments before it imports Keras, which takes seconds and prints lines.

It stands outside the package, which imports Keras to register its initializers.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

_DONE, _FAILED = b"\0done", b"\0failed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `keras-initkit` and returns its exit status, as `keras_initkit.cli.main` does."""
    package = importlib.util.find_spec("keras_initkit")  # finds it, and does not import it
    (folder, *_) = package.submodule_search_locations  # type: ignore[union-attr]
    folder = os.path.join(folder, "cli")
    parser = runpy.run_path(os.path.join(folder, "_parser.py"))["make_parser"]()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not have every letter
    try:
        with _hidden_noise() as stderr:
            with _waiting(stderr):
                run = _import_command(options.command)
            sys.stderr = stderr
            return run(options)
    except _NotStarted as error:
        if options.command == "doctor":  # it says what is missing
            return runpy.run_path(os.path.join(folder, "_doctor_command.py"))["main"](options)
        said = f"keras-initkit {options.command}: error: {error}. keras-initkit doctor shows what is installed."
        print(said, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


class _NotStarted(Exception):
    """Keras or its backend cannot be imported."""


def _import_command(name: str) -> Callable[[argparse.Namespace], int]:
    try:
        from keras_initkit.cli import run

        importlib.import_module(f"keras_initkit.cli._{name}_command")  # which takes seconds too
    except (ImportError, ValueError) as error:  # Keras raises the second if it does not know the backend
        raise _NotStarted(" ".join(str(error).split()).rstrip(".")) from error
    return run


@contextlib.contextmanager
def _hidden_noise() -> Iterator[TextIO]:
    """Keeps back what frameworks write to stderr, and shows it only if the command fails; yields the real stderr.

    Another process keeps it, since C++ may end this one without a word to Python. TensorFlow speaks on the other
    backends too: Keras imports it to save a model.
    """
    try:
        real = os.dup(2)
        if not hasattr(os, "fork"):
            raise OSError("no fork")
    except OSError:  # stderr is closed, or this is Windows
        yield sys.stderr
        return
    reading, writing = os.pipe()
    keeper = os.fork()
    if not keeper:
        try:
            _keep(reading, writing, real)
        finally:  # whatever happens, it does not go on as a second command
            os._exit(0)
    os.close(reading)
    os.dup2(writing, 2)
    os.close(writing)
    before, end = sys.stderr, _FAILED
    try:
        with os.fdopen(os.dup(real), "w", buffering=1, errors="backslashreplace") as stderr:
            yield stderr
        end = _DONE
    finally:
        before.flush()
        sys.stderr = before
        os.write(2, end)
        os.dup2(real, 2)
        os.close(real)
        os.waitpid(keeper, 0)


def _keep(reading: int, writing: int, real: int) -> None:
    """Reads what is written; shows it if the other process failed, or has ended without a word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in {0, 1, 2, writing} - {reading, real}:
        with contextlib.suppress(OSError):  # it was closed before
            os.close(other)
    kept = b""
    while not kept.endswith((_DONE, _FAILED)) and (more := os.read(reading, 1 << 16)):
        kept += more
    if not kept.endswith(_DONE):
        os.write(real, kept.removesuffix(_FAILED))


@contextlib.contextmanager
def _waiting(stderr: TextIO) -> Iterator[None]:
    """Shows on a terminal that Keras is being started."""
    if not stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(file=stderr).status("starting Keras"):
        yield


if __name__ == "__main__":
    raise SystemExit(main())
