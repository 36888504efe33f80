"""`keras-initkit probe`."""

from __future__ import annotations

import argparse
import os
import re
import zipfile
from typing import Any

from keras_initkit._checks import checked_count
from keras_initkit.cli._output import make_writable


def run(options: argparse.Namespace) -> int:
    """Measures a saved model, prints the report and writes the files; returns 1 if `--diagnose` finds an error."""
    from rich.console import Console

    checked_count("--batch", options.batch)
    checked_count("--seed", options.seed, 0)
    for name in ("model", "data"):
        path = getattr(options, name)
        if path is not None and not os.path.isfile(path):
            raise FileNotFoundError(f"{path!r} does not exist or is not a file; give the path of an existing file.")
    if options.out is not None:
        make_writable(options.out)
    console = Console()
    with console.status("starting Keras"):
        from keras_initkit._compat import is_compiled_with_loss
        from keras_initkit.capture._probe import probe
        from keras_initkit.report._render_text import WIDTH
    if not console.is_terminal:  # a pipe has no width
        console = Console(width=WIDTH)
    model = load_model(options.model)
    x, y = (None, None) if options.data is None else load_data(options.data, model, options.batch)
    if y is not None and not is_compiled_with_loss(model):
        console.print("The labels are not used: the model was saved without a loss.")
        y = None
    with console.status("measuring"):
        settings = {"batch_size": options.batch, "seed": options.seed}
        if options.diagnose:
            from keras_initkit.diagnosis._judge import measure_task

            report, task = measure_task(model, x, y, **settings)
        else:
            report = probe(model, x, y, **settings)
    console.print(report)
    if options.out is not None:
        paths = {end: os.path.join(options.out, f"signal_report.{end}") for end in ("csv", "json", "png")}
        report.to_csv(paths["csv"])
        report.to_json(paths["json"])
        report.plot().savefig(paths["png"], dpi=110)
        for path in paths.values():
            console.out(path, highlight=False)  # to be copied: neither wrapped nor read as markup
    return print_findings(report, task, console) if options.diagnose else 0


def print_findings(report: Any, task: Any, console: Any) -> int:
    """Prints the findings, the first to fix on top; returns 1 if one is an error, else 0."""
    from keras_initkit.diagnosis import Findings, _judge

    findings = Findings(_judge.diagnose_reports((report,), task.model, task))
    console.out(f"\n{findings}", highlight=False)  # it holds code to be copied
    return int(any(finding.severity == "error" for finding in findings))


def load_model(path: str) -> Any:
    """Loads a saved model without running code that it may carry; raises a ValueError if that is impossible."""
    import keras

    try:
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises what its parsers raise: KeyError, TypeError, OSError, ...
        text = str(error)
        if "enable_unsafe_deserialization" in text:
            raise ValueError(
                f"{path!r} holds a Lambda layer, whose Python code could do anything. If you trust the file, load it "
                "in Python by keras.saving.load_model(path, safe_mode=False) and call keras_initkit.probe."
            ) from error
        if unknown := re.search(r"Could not locate (?:class|function) '([^']*)'", text):
            raise ValueError(
                f"{path!r} needs {unknown[1]!r}, which only your own code defines. Import that code in Python, load "
                "the model there and call keras_initkit.probe."
            ) from error
        raise ValueError(
            f"{path!r} cannot be read as a Keras model ({type(error).__name__}: {text[:200]}); expected a file that "
            "model.save('name.keras') wrote."
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(f"{path!r} holds a {type(model).__name__}, expected a keras.Model.")
    return model


def load_data(path: str, model: Any, count: int) -> tuple[Any, Any]:
    """Returns the first examples of an `.npz` file, and labels or `None`; a ValueError says what does not fit."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path!r} cannot be read as arrays ({error}); expected an .npz file of numbers that numpy.savez wrote."
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
