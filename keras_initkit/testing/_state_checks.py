"""Checks of what surrounds a draw: seeds, copies, configuration, files, and what a call leaves behind."""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_initkit.testing._subject import ConformanceError, NotApplicable, Subject, to_numpy

SEEDED = 1


@keras.saving.register_keras_serializable("keras_initkit.testing")
class Carrier(keras.layers.Layer):
    """A layer with one weight of a given shape, to carry an initializer into a model and a file."""

    def __init__(self, initializer: Any, shape: tuple[int, ...], **options: Any):
        super().__init__(**options)
        self.initializer, self.shape = keras.initializers.get(initializer), tuple(shape)
        self.traces = 0

    def build(self, input_shape: Any) -> None:
        """Makes the weight."""
        self.weight = self.add_weight(shape=self.shape, initializer=self.initializer, name="weight")

    def call(self, inputs: Any) -> Any:
        """Draws again, so that a compiled function contains the draw, and counts how often it is traced."""
        self.traces += 1
        return inputs + keras.ops.sum(keras.ops.cast(self.initializer(self.shape, "float32"), inputs.dtype))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        initializer = keras.initializers.serialize(self.initializer)
        return {**super().get_config(), "initializer": initializer, "shape": self.shape}


def draw(initializer: Any, subject: Subject) -> np.ndarray:
    """Small values to compare."""
    return to_numpy(initializer(subject.known.small, "float32"))


def reproducibility(subject: Subject) -> None:
    """An integer seed gives the same values from each instance and at each call; another seed gives others."""
    subject.needs_seed()
    initializer = subject.with_seed(SEEDED)
    first = draw(initializer, subject)
    for other, how in ((initializer, "at a second call"), (subject.with_seed(SEEDED), "from a second instance")):
        if not np.array_equal(first, draw(other, subject)):
            raise ConformanceError(f"got other values {how} with the same integer seed; draw with self.seed.")
    if np.array_equal(first, draw(subject.with_seed(SEEDED + 1), subject)):
        raise ConformanceError("got the same values from two integer seeds; draw with self.seed.")


def distinct_draws(subject: Subject) -> None:
    """Without a seed, or with a SeedGenerator, each call draws different values."""
    subject.needs_seed()
    for seed in (None, keras.random.SeedGenerator(SEEDED)):
        initializer = subject.with_seed(seed)
        if np.array_equal(draw(initializer, subject), draw(initializer, subject)):
            raise ConformanceError(
                f"got the same values twice with seed={'None' if seed is None else 'a SeedGenerator'}, expected two "
                "draws: two layers that share the instance would start out equal; make a fresh seed in each call."
            )


def clone_safety(subject: Subject) -> None:
    """Clones by `from_config(get_config())`, as MultiHeadAttention makes them, are equals that draw apart.

    With an integer seed they draw the same values, since their configuration is the same; without a seed, or
    with a SeedGenerator, two clones draw different ones.
    """
    kind = type(subject.initializer)

    def clone(initializer: Any) -> Any:
        # A plain copy of the configuration: ours warn if they see that a clone will repeat an integer seed.
        copy = kind.from_config(dict(initializer.get_config()))
        if type(copy) is not kind or copy.get_config() != initializer.get_config():
            raise ConformanceError(
                f"got a clone {type(copy).__name__} with {copy.get_config()}, expected {kind.__name__} with "
                f"{initializer.get_config()}; let from_config(get_config()) restore every argument."
            )
        return copy

    clone(subject.initializer)
    for seed in (SEEDED, None, keras.random.SeedGenerator(SEEDED)) if subject.is_random else (None,):
        initializer = subject.with_seed(seed)
        one, two = clone(initializer), clone(initializer)
        equal = np.array_equal(draw(one, subject), draw(two, subject))
        if seed == SEEDED and not equal:
            raise ConformanceError("got other values from a clone with the same integer seed; draw with self.seed.")
        if seed != SEEDED and subject.is_random and equal:
            raise ConformanceError(
                f"got the same values from two clones with seed={'None' if seed is None else 'a SeedGenerator'}: the "
                "query, key and value kernels of a MultiHeadAttention would be equal. Make a fresh seed in each call "
                "and let copies share a generator, or name this check in deviations, as for Keras' own."
            )


def configuration(subject: Subject) -> None:
    """`get_config()` is exactly the constructor's arguments; an unset seed stays None."""
    config = subject.initializer.get_config()
    missing, extra = set(subject.arguments) - set(config), set(config) - set(subject.arguments)
    if missing or extra:
        raise ConformanceError(
            f"got a configuration with {sorted(config)}, expected the constructor's arguments "
            f"{sorted(subject.arguments)}: missing {sorted(missing)}, unknown {sorted(extra)}."
        )
    if "seed" not in subject.arguments:
        return
    for seed in (None, SEEDED):
        got = subject.with_seed(seed).get_config()["seed"]
        if got != seed or type(got) is not type(seed):
            raise ConformanceError(
                f"got seed {got!r} in the configuration of an initializer with seed={seed!r}, expected {seed!r}; keep "
                "what the constructor was given, and resolve it in the call."
            )
    draw(initializer := subject.with_seed(None), subject)
    if initializer.get_config()["seed"] is not None:
        raise ConformanceError("got a seed in the configuration after an unseeded draw, expected None as before.")


def json_round_trip(subject: Subject) -> None:
    """The configuration passes through JSON, the class is registered, and the copy draws the same values."""
    initializer = subject.with_seed(SEEDED)
    serialized = keras.saving.serialize_keras_object(initializer)
    try:
        text = json.dumps(serialized)
    except TypeError as error:
        raise ConformanceError(f"got a configuration that is not JSON ({error}); return plain data.") from error
    name, kind = serialized["registered_name"], type(initializer)
    # Keras' own classes are known by their module and have no registered name.
    if serialized["module"] != "keras.initializers" and keras.saving.get_registered_object(name) is not kind:
        raise ConformanceError(
            f"got {name!r}, which is not registered; put @keras.saving.register_keras_serializable(package) "
            f"before class {kind.__name__}, or files with it load only where it can be imported."
        )
    restored = keras.saving.deserialize_keras_object(json.loads(text))
    if type(restored) is not kind or json.dumps(keras.saving.serialize_keras_object(restored)) != text:
        raise ConformanceError(f"got {restored!r} with {restored.get_config()} back from JSON, expected {text}.")
    if not np.array_equal(draw(restored, subject), draw(initializer, subject)):
        raise ConformanceError("got other values from the copy that went through JSON; restore every argument.")


def keras_round_trip(subject: Subject) -> None:
    """A model that holds it is saved to a `.keras` file and loaded back in safe mode."""
    carrier = Carrier(subject.with_seed(SEEDED), subject.known.small)
    model = keras.Sequential([keras.Input((1,)), carrier])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        try:
            loaded = keras.saving.load_model(path, safe_mode=True).layers[0]
        except Exception as error:
            raise ConformanceError(
                f"got {error!r} when loading a .keras file in safe mode; register the class, and give "
                "configurations that from_config takes."
            ) from error
    got, expected = loaded.initializer.get_config(), carrier.initializer.get_config()
    if got != expected:
        raise ConformanceError(f"got {got} back from a .keras file, expected {expected}.")
    if not np.array_equal(to_numpy(loaded.weight), to_numpy(carrier.weight)):
        raise ConformanceError("got other weights back from a .keras file, expected those saved.")


def global_random_state(subject: Subject) -> None:
    """A call leaves NumPy's global random state alone and, with a seed, that of Python's `random`.

    Without a seed one number of the latter may be used, so `keras.utils.set_random_seed` makes the draw reproducible.
    """
    for seed in (SEEDED, None) if subject.is_random else (SEEDED,):
        initializer = subject.with_seed(seed)
        numpy_before, python_before = tuple(np.random.get_state())[1:], random.getstate()  # noqa: NPY002  (that is the point)
        draw(initializer, subject)
        numpy_after = tuple(np.random.get_state())[1:]  # noqa: NPY002
        if not all(np.array_equal(before, after) for before, after in zip(numpy_before, numpy_after, strict=True)):
            raise ConformanceError("NumPy's global random state was used; draw with keras.random and self.seed.")
        if seed is not None and random.getstate() != python_before:
            raise ConformanceError("the state of Python's random was used by a seeded draw; use self.seed alone.")


def attributes(subject: Subject) -> None:
    """A call changes neither the initializer's attributes nor its configuration."""

    def snapshot(initializer: Any) -> dict[str, str]:
        with np.printoptions(threshold=sys.maxsize):
            return {k: repr(v) for k, v in [*vars(initializer).items(), ("get_config()", initializer.get_config())]}

    for seed in (SEEDED, None) if subject.is_random else (SEEDED,):
        initializer = subject.with_seed(seed)
        before = snapshot(initializer)
        draw(initializer, subject)
        after = snapshot(initializer)
        changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
        if changed:
            raise ConformanceError(
                f"got other values of {', '.join(changed)} after a call; compute what depends on the shape in the call."
            )


def retracing(subject: Subject) -> None:
    """It can be called in a compiled function, and a second call of that function does not trace it again."""
    if keras.backend.backend() == "torch":
        raise NotApplicable("the torch backend runs eagerly: nothing is traced or compiled")
    carrier = Carrier(subject.with_seed(SEEDED), subject.known.small)
    model = keras.Sequential([keras.Input((1,)), carrier])
    inputs = np.zeros((1, 1), "float32")
    try:
        model.predict_on_batch(inputs)
    except Exception as error:
        raise ConformanceError(
            f"got {type(error).__name__} in a compiled function ({str(error).splitlines()[0]}); keep to keras.ops and "
            "keras.random, and make no variables and no NumPy arrays from tensors."
        ) from error
    traces = carrier.traces
    model.predict_on_batch(inputs)
    if carrier.traces != traces:
        raise ConformanceError(f"got {carrier.traces - traces} more traces at the second call, expected none.")
