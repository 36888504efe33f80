"""compare(): the same model under many initializations."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from typing import Any

from keras_initkit.comparison._contestants import DEFAULT, schemes

__all__ = ["compare"]


def compare(
    initializers: Sequence[str] = DEFAULT,
    *,
    activation: str = "relu",
    depth: int = 10,
    epochs: int = 5,
    seeds: int = 1,
    seed: int = 0,
    data: str = "digits",
    units: int = 128,
    batch_size: int = 32,
    learning_rate: float = 0.01,
    log_dir: str | os.PathLike | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Any:
    """Trains the same model from many initializations and measures its signal before the first update.

    The model is the sources': `Flatten`, `depth` layers `Dense(units, activation)` with zero biases, and a
    softmax classifier, all kernels drawn by the same scheme; trained by SGD with momentum 0.9.

    Args:
        initializers: names as Keras takes them, or ours in snake case.
        activation: name of a Keras activation for the hidden layers.
        depth: number of hidden layers.
        epochs: number of passes over the training set.
        seeds: number of runs of each initializer, with seeds `seed`, `seed + 1`, ...
        seed: the first seed; also decides the split into training and test set. The same seed gives the same
            numbers again.
        data: `"digits"`, `"gaussian"`, `"mnist"`, or an `.npz` file with arrays `x` and `y`.
        units, batch_size, learning_rate: of the model and its training.
        log_dir: where to log every run for TensorBoard, with its hyperparameters; `None` logs nothing.
        progress: called with what is being done and the share done so far, from 0 to 1.

    Returns:
        A `Comparison`: `print` it, `rows()`, `plot_histograms()`, `plot_variance()`, `plot_training()`,
        `save(directory)`.

    Raises:
        ValueError: before any training, for an unknown name, a number out of range, data of the wrong
            shape, or a `log_dir` that holds other runs.
        OSError: before any training, if `log_dir` cannot be written.
    """
    from keras_initkit.theory import activation_range

    counts = {"depth": depth, "epochs": epochs, "seeds": seeds, "units": units, "batch_size": batch_size}
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a whole number of 1 or more.")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ValueError(f"seed: got {seed!r}, expected a whole number from 0 to 2**31 - 1.")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate: got {learning_rate!r}, expected a number above 0.")
    activation_range(activation_checked(activation))  # refuses what is not elementwise
    schemes(initializers, activation)

    from keras_initkit.comparison._data import load
    from keras_initkit.comparison._experiment import Experiment
    from keras_initkit.comparison._hparams import write_experiment
    from keras_initkit.comparison._result import Comparison

    settings = {
        "activation": activation,
        "depth": depth,
        "epochs": epochs,
        "seeds": seeds,
        "seed": seed,
        "data": data,
        "units": units,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    dataset = load(data, seed)
    hyperparameters = {name: value for name, value in settings.items() if name not in ("seeds", "seed")}
    shapes = [(dataset.x_train[0].size, units), (units, units), (units, dataset.classes)]
    initializers = list(schemes(initializers, activation, shapes))
    if log_dir is not None:
        log_dir = os.fspath(log_dir)
        found = glob.glob(os.path.join(glob.escape(log_dir), "**", "events.out.tfevents.*"), recursive=True)
        if found:
            raise ValueError(f"log_dir: {log_dir!r} holds other runs ({found[0]}); give a new or an empty directory.")
        try:
            write_experiment(log_dir)
        except OSError as error:
            raise OSError(f"log_dir: {log_dir!r} cannot be written ({error}); give another directory.") from error
    experiment = Experiment(dataset, hyperparameters)
    runs: list[Any] = []
    total, done = len(initializers) * seeds * epochs, 0
    for name in initializers:
        for run_seed in range(seed, seed + seeds):
            title = name if seeds == 1 else f"{name}-{run_seed}"

            def on_epoch(title: str = title) -> None:
                nonlocal done
                done += 1
                if progress is not None:
                    progress(title, done / total)

            run_dir = None if log_dir is None else os.path.join(log_dir, title)
            runs.append(experiment.run(name, run_seed, run_dir, on_epoch))
    return Comparison(settings, dataset.chance, len(dataset.y_test), runs)


def activation_checked(activation: str) -> str:
    """The name of an activation, if Keras knows it."""
    from keras_initkit.theory._activations import resolve

    if not isinstance(activation, str):
        raise ValueError(f"activation: got {activation!r}, expected the name of a Keras activation.")
    resolve(activation)
    return activation
