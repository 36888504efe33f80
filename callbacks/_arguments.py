"""Arguments that the callback and `watch` share; `log_dir` has a file of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_initkit._checks import checked_option
from keras_initkit.callbacks._run_diagnosis import OnFinding
from keras_initkit.callbacks._run_directory import checked_log_dir as checked_log_dir
from keras_initkit.callbacks._sinks import Sink
from keras_initkit.structure._sublayers import unused


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


def named_models(model: Any) -> dict[str, keras.Model]:
    """Returns the models by the prefix of their layers' paths.

    Raises:
        ValueError: If there is none, or something else among them.
    """
    if isinstance(model, keras.Model):
        return {"": model}
    named = dict(model) if isinstance(model, Mapping) else {}
    for each in () if named or not isinstance(model, Iterable) else model:
        named[unused(getattr(each, "name", ""), named)] = each  # two may have one name
    if not named or not all(isinstance(each, keras.Model) for each in named.values()):
        raise ValueError(f"model: got {model!r}, expected a Keras model, or a list or dictionary of Keras models.")
    return {f"{name}/": each for name, each in named.items()}


def listed_optimizers(optimizer: Any) -> list[Any]:
    """Returns the optimizers of a structure.

    Raises:
        ValueError: If there is something else in it.
    """
    listed = [] if optimizer is None else keras.tree.flatten(optimizer)
    for each in listed:
        if not isinstance(each, keras.optimizers.Optimizer) and not hasattr(each, "param_groups"):  # of torch.optim
            raise ValueError(
                f"optimizer: got {each!r}, expected a Keras optimizer (on PyTorch also one of torch.optim), or a list "
                "or dictionary of these. Leave it out to measure without gradients of weights."
            )
    return listed
