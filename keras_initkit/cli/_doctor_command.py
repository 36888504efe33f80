"""`keras-initkit doctor`. It imports the package late, because it also runs where Keras does not start."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_BACKENDS = ("tensorflow", "jax", "torch")
_EXTRAS = {
    "pandas": "data frames of reports",
    "fsspec": "logs in remote stores",
    "mlflow": "logs in MLflow",
    "wandb": "logs in Weights & Biases",
    "keras_hub": "transformers to try it on",
}


class Check(NamedTuple):
    """One line: whether it works (`None` where nothing needs to), what it is, and what was found or what to do."""

    works: bool | None
    name: str
    found: str


def main(options: argparse.Namespace) -> int:
    """Prints a line for each check; returns 1 if something does not work that should."""
    status, result = run(options)
    if options.json:
        print(json.dumps(result, indent=1))
    return status


def run(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    """Prints a line for each check as it is made, unless as JSON later; status 1 if something does not work."""
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    marks = {True: "ok" if plain else "✓", False: "NO" if plain else "✗", None: "-"}
    checks = []
    for check in _checks():
        checks.append(check)
        if not options.json:
            print(f"{marks[check.works]:<{2 if plain else 1}} {check.name:<16} {check.found}", flush=True)
    failed = [check for check in checks if check.works is False]
    if not options.json:
        print(
            f"\n{len(failed)} of {len(checks)} {'does' if len(failed) == 1 else 'do'} not work."
            if failed
            else "\nEverything works."
        )
    return int(bool(failed)), {"works": not failed, "checks": [check._asdict() for check in checks]}


def _checks() -> Iterator[Check]:
    yield Check(True, "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield _installed("keras-initkit", "keras_initkit")
    keras = _installed("Keras", "keras")
    yield keras
    if keras.works:
        yield from _backends()
    for module, purpose in _EXTRAS.items():
        version = _version(module)
        yield Check(None, module, f"{version or 'not installed'} (optional: {purpose})")


def _backends() -> Iterator[Check]:
    """The backends, and all that needs the active one."""
    try:
        import keras

        active = keras.backend.backend()
        name, problem = active, ""
    except Exception as error:  # of any kind: Keras, its backend and their libraries raise what they like
        name, problem = os.environ.get("KERAS_BACKEND", "tensorflow"), _in_words(error)
    for backend in _BACKENDS:
        version = _version(backend)
        if backend != name:
            yield Check(None, backend, version or "not installed")
        elif not problem:
            chosen = "by KERAS_BACKEND" if os.environ.get("KERAS_BACKEND") else "by keras.json or by default"
            yield Check(True, backend, f"{version}, the active backend ({chosen})")
    if problem:
        known = f"pip install {name}, or set KERAS_BACKEND to a backend that is installed"
        remedy = known if name in _BACKENDS else f"Expected one of {', '.join(_BACKENDS)}"
        yield Check(False, f"backend {name}", f"Keras does not start: {problem}. {remedy}.")
        return
    for what, attempt in (
        ("devices", _devices),
        ("a draw", _draw),
        ("a probe", _probe),
        ("a measured step", _measured_step),
        ("TensorBoard", _tensorboard),
    ):
        yield _tried(what, attempt)


def _tried(name: str, attempt: Callable[[], str]) -> Check:
    """Runs a check, which returns what it found and raises if something does not work."""
    try:
        return Check(True, name, attempt())
    except Exception as error:  # of any kind: this is what is to be found out
        return Check(False, name, _in_words(error))


def _devices() -> str:
    import keras

    try:
        return ", ".join(keras.distribution.list_devices())
    except (AttributeError, NotImplementedError, TypeError):  # PyTorch's backend has no such list
        return str(keras.ops.zeros(()).device)


def _draw() -> str:
    import keras

    import keras_initkit  # noqa: F401  registers the name

    units = 256
    kernel = keras.initializers.get("keras_initkit>ActivationScaling")((units, units))
    found, expected = float(keras.ops.std(kernel)), math.sqrt(2 / units)
    if abs(found / expected - 1) > 0.02:  # more than seven standard errors
        raise ValueError(f"ActivationScaling drew a standard deviation of {found:.4f}, expected {expected:.4f}")
    return f"standard deviation {found:.4f}, expected {expected:.4f}"


def _model() -> Any:
    import keras

    hidden = keras.layers.Dense(16, "relu", kernel_initializer="he_normal", name="hidden")
    model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(2, name="head")])
    model.compile("adam", "mse")
    return model


def _probe() -> str:
    import numpy as np

    from keras_initkit.capture import probe

    report = probe(_model(), np.random.default_rng(0).standard_normal((64, 8)))
    if not report.rows or report.first_nonfinite is not None:
        raise ValueError("a model of two Dense layers was not measured")
    return f"a model of two layers has {len(report.rows)} rows, all finite"


def _measured_step() -> str:
    import numpy as np

    from keras_initkit.callbacks import verify

    rng = np.random.default_rng(0)
    result = verify(_model(), rng.standard_normal((32, 8)), rng.standard_normal((32, 2)))
    if not (result.equal and result.measured):
        raise ValueError(str(result))
    return "same as a plain one, to the last bit"


def _tensorboard() -> str:
    version = _version("tensorboard")
    if version is None:
        raise ImportError("not installed; pip install tensorboard")
    found = importlib.metadata.entry_points(group="tensorboard_plugins", name="keras_initkit")
    if not found:
        raise ImportError(f"{version}; its plugin is not registered: install keras-initkit again")
    for entry in found:
        entry.load()
    return f"{version}, with the plugin of keras-initkit"


def _installed(name: str, module: str) -> Check:
    version = _version(module)
    return Check(version is not None, name, version or "not installed")


def _version(module: str) -> str | None:
    """Returns the version of an installed module, whatever the name of its distribution; `None` without."""
    if importlib.util.find_spec(module) is None:
        return None
    for name in (module, module.replace("_", "-"), f"{module}-skinny", f"{module}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "installed"


def _in_words(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
