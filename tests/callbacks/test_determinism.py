"""On a GPU whose operations may round otherwise each time, one warning says what would make them deterministic."""

import warnings

import keras
import pytest

from keras_initkit.callbacks import LayerStatsCallback, _run_record

REMEDIES = {
    "tensorflow": "tf.config.experimental.enable_op_determinism()",
    "torch": "torch.use_deterministic_algorithms(True)",
    "jax": "XLA_FLAGS=--xla_gpu_deterministic_ops=true in the environment",
}


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Has the backend say that there is a GPU; returns how to have it deterministic."""
    _run_record._warn_once.cache_clear()
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf
        from tensorflow.python.framework import config

        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
        yield config.enable_op_determinism
        config.disable_op_determinism()
    elif backend == "torch":
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        yield lambda: torch.use_deterministic_algorithms(True)
        torch.use_deterministic_algorithms(False)
    else:
        import jax

        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        yield lambda: monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    _run_record._warn_once.cache_clear()


def warned():
    """Opens the log of two runs, as `fit` does when it begins; returns the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            record = LayerStatsCallback(None)._record
            record.open(None)
    return [str(each.message) for each in caught]


def test_nothing_is_said_without_a_gpu():
    _run_record._warn_once.cache_clear()
    assert not warned()


def test_one_warning_says_what_to_do(on_a_gpu):
    (message,) = warned()
    assert message.startswith("LayerStatsCallback: operations of this GPU may add up in another order each time")
    assert f"Use {REMEDIES[keras.backend.backend()]} where that matters." in message


def test_nothing_is_said_of_deterministic_operations(on_a_gpu):
    on_a_gpu()
    assert not warned()
