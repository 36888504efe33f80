"""compare(): the same model under many initializers."""

from __future__ import annotations

import glob
import os
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

from keras_initkit._checks import checked_count, checked_number
from keras_initkit._progress_bar import progress_bar
from keras_initkit.comparison._contestants import DEFAULT, check_contestants, find_contestants
from keras_initkit.comparison._datasets import load
from keras_initkit.comparison._experiment import Experiment
from keras_initkit.comparison._hparams import write_experiment
from keras_initkit.comparison._result import Comparison, Run
from keras_initkit.theory import activation_range
from keras_initkit.theory._activations import resolve


def compare(
    initializers: Sequence[Any] = DEFAULT,
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
    log_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[str, float], object] | None = None,
) -> Comparison:
    """Trains the same model from many initializers and measures activations and gradients before the first update.

    The model is `Flatten`, `depth` layers `Dense(units, activation)` with zero biases, and a softmax classifier. The
    same initializer draws all its kernels, each from a seed that follows from the run's. SGD with momentum 0.9
    trains it.

    Args:
        initializers: List of initializers, each by its name (`"he_normal"`, `"activation_scaling"`), class,
            configuration or instance. Those given by name or class get the layer's activation where they take one;
            an instance's own seed is not used.
        activation: String. Name of a Keras activation for the hidden layers.
        depth: Integer. Number of hidden layers.
        epochs: Integer. Number of passes over the training set.
        seeds: Integer. Number of runs of each initializer, with seeds `seed`, `seed + 1`, ...
        seed: Integer. The first seed; it also decides the split into training and test set. The same seed gives
            the same numbers again.
        data: String. `"digits"`, `"gaussian"`, `"mnist"`, or the path of an `.npz` file with arrays `x` and `y`.
        units: Integer. Units of each hidden layer.
        batch_size: Integer. Examples in a training batch.
        learning_rate: Float. Learning rate of SGD.
        log_dir: String or path. Directory for TensorBoard's logs of every run; `None` logs nothing.
        progress: Function called after each epoch with the run's name and the fraction that is done. `None` shows a
            progress bar on a terminal and in a notebook.

    Returns:
        A `Comparison`: `print` it, or call `rows()`, `plot_histograms()`, `plot_variance()`, `plot_training()`,
        `save(directory)`.

    Raises:
        ValueError: Before any training, for an unknown initializer, a number out of range, data of the wrong
            shape, or a `log_dir` that holds other runs.
        OSError: Before any training, if `log_dir` cannot be written.

    Example:

    ```python
    comparison = compare(["glorot_uniform", keras.initializers.HeNormal()], activation="relu", depth=20)
    print(comparison)
    comparison.plot_variance().savefig("variance.png")
    ```
    """
    if not isinstance(data, str):
        raise ValueError(f"data: got {reprlib.repr(data)}, expected the name of a data set or a path of an .npz file.")
    if log_dir is not None and not isinstance(log_dir, str | os.PathLike):
        raise ValueError(f"log_dir: got {log_dir!r}, expected a path, or None to write no logs.")
    if progress is not None and not callable(progress):
        raise ValueError(f"progress: got {progress!r}, expected a function of the run's name and the fraction done.")
    if not isinstance(activation, str):
        raise ValueError(f"activation: got {activation!r}, expected the name of a Keras activation.")
    settings: dict[str, Any] = {
        "activation": activation,
        "depth": checked_count("depth", depth),
        "epochs": checked_count("epochs", epochs),
        "seeds": checked_count("seeds", seeds),
        "seed": checked_count("seed", seed, 0, 2**31 - 1),
        "data": data,
        "units": checked_count("units", units),
        "batch_size": checked_count("batch_size", batch_size),
        "learning_rate": checked_number("learning_rate", learning_rate, above=0),
    }
    resolve(activation)
    activation_range(activation)  # raises for what is not elementwise
    contestants = find_contestants(initializers)
    check_contestants(contestants, activation)  # before the data are read, which may be a download
    dataset = load(data, settings["seed"])
    shapes = [(dataset.x_train[0].size, units), (units, units), (units, dataset.classes)]
    check_contestants(contestants, activation, shapes)
    if log_dir is not None:
        _begin_logs(os.fspath(log_dir))
    experiment = Experiment(dataset, {name: value for name, value in settings.items() if name not in ("seeds", "seed")})
    runs: list[Run] = []
    epochs_to_do = len(contestants) * settings["seeds"] * settings["epochs"]
    with progress_bar("tracing the model", 1.0, progress is None) as update:
        for contestant in contestants:
            for run_seed in range(settings["seed"], settings["seed"] + settings["seeds"]):
                title = contestant.name if settings["seeds"] == 1 else f"{contestant.name}-{run_seed}"

                def on_epoch(epoch: int, title: str = title, before: int = len(runs) * settings["epochs"]) -> None:
                    done = (before + epoch + 1) / epochs_to_do
                    update(done, title)
                    if progress is not None:
                        progress(title, done)

                run_dir = None if log_dir is None else os.path.join(log_dir, title)
                runs.append(experiment.run(contestant, run_seed, run_dir, on_epoch))
    return Comparison(settings, dataset.chance, len(dataset.y_test), runs)


def _begin_logs(log_dir: str) -> None:
    """Describes the runs for TensorBoard in a directory that holds no others."""
    found = glob.glob(os.path.join(glob.escape(log_dir), "**", "events.out.tfevents.*"), recursive=True)
    if found:
        raise ValueError(f"log_dir: {log_dir!r} holds other runs ({found[0]}); give a new or an empty directory.")
    try:
        write_experiment(log_dir)
    except OSError as error:
        raise OSError(f"log_dir: {log_dir!r} cannot be written ({error}); give another directory.") from error
