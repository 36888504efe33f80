"""Models and data in files, as the commands read and write them."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import warnings
import zipfile
from typing import Any

import keras
import numpy as np

from keras_initkit._compat import is_compiled_with_loss
from keras_initkit.cli._output import waiting


def load_inputs(options: argparse.Namespace) -> tuple[keras.Model, Any, Any, list[str]]:
    """Returns the model of the options, its inputs and labels or `None`, and notes on what is not used."""
    if getattr(options, "output", None) is not None:
        _check_output(options.output, options.overwrite)
    with waiting("reading the model"):
        model = load_model(options.model)
    x, y = (None, None) if options.data is None else load_data(options.data, model, getattr(options, "batch", None))
    if y is not None and not is_compiled_with_loss(model):
        return model, x, None, ["The labels are not used: the model was saved without a loss."]
    return model, x, y, []


def load_model(path: str) -> keras.Model:
    """Loads a saved model without running code that it may carry; raises a ValueError if that is impossible."""
    try:
        with warnings.catch_warnings():  # one is of every model that was compiled and not trained yet
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises what its parsers raise: KeyError, TypeError, OSError, ...
        text = str(error)
        if "enable_unsafe_deserialization" in text:
            raise ValueError(
                f"{path!r} holds a Lambda layer, whose Python code could do anything. If you trust the file, load it "
                "in Python by keras.saving.load_model(path, safe_mode=False) and call keras_initkit there."
            ) from error
        if unknown := re.search(r"Could not locate (?:class|function) '([^']*)'", text):
            raise ValueError(
                f"{path!r} needs {unknown[1]!r}, which only your own code defines. Import that code in Python, load "
                "the model there and call keras_initkit.probe, .diagnose, .repair, .initialize or .verify."
            ) from error
        raise ValueError(
            f"{path!r} cannot be read as a Keras model ({type(error).__name__}: {text[:200]}); expected a file that "
            "model.save('name.keras') wrote."
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(f"{path!r} holds a {type(model).__name__}, expected a keras.Model.")
    return model


def save_model(model: keras.Model, path: str) -> None:
    """Writes a model; what is in the file before is only replaced once that has succeeded."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path) or ".") as directory:
        part = os.path.join(directory, "model.keras")
        model.save(part)
        os.replace(part, path)


def _check_output(path: str, overwrite: bool) -> None:
    """Raises an `OSError` before any work is done, if a model cannot be written there."""
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f"--output: {path!r} exists; give another path, or --overwrite.")
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.access(directory, os.W_OK):
        raise OSError(f"--output: {path!r} cannot be written; expected a file in a directory that can be written.")


def load_data(path: str, model: keras.Model, count: int | None = None) -> tuple[Any, Any]:
    """Returns the first examples of a file, or all, and labels or `None`; a ValueError says what does not fit."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"x": loaded}
        else:
            with loaded as file:
                arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path!r} cannot be read as arrays ({error}); expected an .npz file of numbers that numpy.savez wrote, "
            "or an .npy file."
        ) from error
    inputs = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    outputs = getattr(model, "output_names", None) or []
    if "x" in arrays and (len(inputs) <= 1 or "x" not in inputs):
        chosen: dict[str, Any] = {"x": arrays["x"]}
    elif inputs and set(inputs) <= set(arrays):
        chosen = {name: arrays[name] for name in inputs}
    else:
        named = f", or one for each input: {', '.join(inputs)}" if inputs else ""
        raise ValueError(f"{path!r} holds {', '.join(arrays) or 'nothing'}; expected an array x{named}.")
    labels = ["y"] if "y" in arrays and "y" not in chosen else [name for name in outputs if name in arrays]
    used = {**chosen, **{name: arrays[name] for name in labels}}
    lengths = {name: len(array) if array.ndim else None for name, array in used.items()}
    if len(set(lengths.values())) > 1 or None in lengths.values():
        listed = ", ".join(f"{name}: {array.shape}" for name, array in used.items())
        raise ValueError(f"{path!r} holds arrays of shapes {listed}; expected the same number of examples in each.")
    x = {name: array[:count] for name, array in chosen.items()}
    y = [arrays[name][:count] for name in labels] if labels == ["y"] or len(labels) == len(outputs) else []
    return x if len(x) > 1 else next(iter(x.values())), (y if len(y) > 1 else y[0]) if y else None
