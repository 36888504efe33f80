"""Names of TensorFlow, JAX and PyTorch that have moved cost a warning and what it says; see test_moved_keras.py."""

import threading

import keras
import numpy as np
import pytest

from keras_initkit import _compat
from keras_initkit._compat import _keras_training

BACKEND = keras.backend.backend()
MODULE = "tensorflow.python.eager.polymorphic_function.eager_function_run"
on_tensorflow, on_jax, on_torch = (
    pytest.mark.skipif(name != BACKEND, reason=f"names of {name}") for name in ("tensorflow", "jax", "torch")
)


@pytest.fixture
def hide_logits(monkeypatch):
    """Hides `_keras_logits` from `_compat`, which asks by `getattr` and `hasattr` there."""
    monkeypatch.setattr(_keras_training, "getattr", lambda *arguments: None, raising=False)
    monkeypatch.setattr(_keras_training, "hasattr", lambda *arguments: False, raising=False)


@on_tensorflow
@pytest.mark.parametrize("eager", [False, True])
def test_outputs_whose_logits_are_not_found(eager, hide_logits, use):
    _, reports, said = use(eager)
    (message,) = said
    assert "no longer has keras.activations.softmax(x)._keras_logits; the gradients of softmax" in message
    read = {(row["layer"], row["kind"]) for row in reports[0]["rows"]}
    assert {("a", "output"), ("z", "output"), ("a", "weight_gradient")} <= read
    assert ("z", "output_gradient") not in read
    assert (("a", "output_gradient") in read) is not eager


@on_tensorflow
def test_the_memory_optimizer_stays_on(take_away, check_use):
    take_away("tensorflow.python.eager.context", "context")
    check_use("tensorflow.python.eager.context.context", "in the last bits")


@on_tensorflow
def test_an_identity_by_the_public_function(take_away, check_use):
    import tensorflow as tf

    take_away("tensorflow.python.eager.record", "record_operation")
    check_use("tensorflow.python.eager.record", "twice as much memory")
    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.square(_compat.tensorflow_identity(x, lambda gradient: [10 * gradient]))
    assert (float(y), float(tape.gradient(y, x))) == (9, 60)


@on_tensorflow
def test_convolutions_that_nothing_replaces(take_away, check_use):
    try:
        take_away("keras.src.backend.tensorflow.ops.nn", "conv")
    except ImportError:  # Keras up to 3.15
        take_away("keras.src.backend.tensorflow.nn", "conv")
    check_use("keras.src.backend.tensorflow.nn.conv", "cannot be probed on a CPU")


@on_tensorflow
def test_functions_run_eagerly_in_all_threads(take_away, check_use):
    import tensorflow as tf

    take_away(MODULE, "RUN_FUNCTIONS_EAGERLY")
    check_use(f"{MODULE}.RUN_FUNCTIONS_EAGERLY", "all other threads run eagerly")
    seen = []
    with _compat.tensorflow_functions_eager(True):
        thread = threading.Thread(target=lambda: seen.append(tf.config.functions_run_eagerly()))
        thread.start()
        thread.join()
        with _compat.tensorflow_functions_eager(False):
            assert tf.config.functions_run_eagerly() is False
        assert tf.config.functions_run_eagerly() is True
    assert seen == [True]
    assert tf.config.functions_run_eagerly() is False


@on_jax
def test_the_trace_that_is_running(hide, check_use):
    import jax

    hide(jax.core.Tracer, "_trace")
    check_use("jax.core.Tracer._trace", "depends on no trainable weight")
    levels = []

    def step(x):
        outside = _compat.jax_trace([x])
        jax.lax.scan(lambda carry, _: (levels.append(_compat.jax_trace(carry)) or carry, None), x, None, length=2)
        levels.extend([outside, _compat.jax_trace(x + 1)])
        return x

    jax.jit(step)(np.ones(2))
    in_loop, outside, after = levels[-3:]
    assert outside is after
    assert in_loop is not outside
    assert _compat.jax_trace(np.ones(2)) is None


@on_torch
def test_a_backward_pass_that_is_not_known(monkeypatch, check_use):
    import torch

    monkeypatch.delattr(torch._C, "_current_graph_task_id")
    check_use("torch._C._current_graph_task_id", "read twice")
    assert _compat.torch_is_in_backward_pass() is False


@on_tensorflow
def test_operations_are_taken_for_deterministic(take_away):
    take_away("tensorflow.python.framework.config", "is_op_determinism_enabled")
    with pytest.warns(UserWarning, match="is_op_determinism_enabled; nothing says that training on a GPU differs"):
        assert _compat.tensorflow_is_deterministic()
