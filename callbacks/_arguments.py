"""Arguments that the callback and `watch` share; `log_dir` has a file of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keras_initkit._checks import checked_option
from keras_initkit.callbacks._run_diagnosis import OnFinding
from keras_initkit.callbacks._run_directory import checked_log_dir as checked_log_dir
from keras_initkit.callbacks._sinks import Sink


def checked_on_finding(on_finding: Any) -> OnFinding:
    """Returns what is to be done with findings.

    Raises:
        ValueError: If it is neither one of the words nor a function.
    """
    if not callable(on_finding):
        checked_option("on_finding", on_finding, ("warn", "stop", "ignore"), ", or a function that takes a Finding")
    return on_finding


def checked_sinks(sinks: Any) -> tuple[Sink, ...]:
    """Returns the sinks.

    Raises:
        ValueError: If it is no list of objects with the methods of `Sink`.
    """
    expected = "with the methods log(values, step) and alert(finding)"
    if isinstance(sinks, str | type | Sink) or not isinstance(sinks, Iterable):
        raise ValueError(f"sinks: got {sinks!r}, expected a list of objects {expected}. Put a single one into [...].")
    chosen = tuple(sinks)
    for sink in chosen:
        methods = (getattr(sink, "log", None), getattr(sink, "alert", None))
        if isinstance(sink, type) or not all(map(callable, methods)):
            raise ValueError(
                f"sinks: got {sink!r}, expected an object {expected}. Add them, or use one of JSONLinesSink, "
                "MLflowSink, TensorBoardSink and WandbSink."
            )
    return chosen
