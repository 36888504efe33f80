"""The private names that `watch` needs: still there, and what becomes of it when one is not."""

import functools
import warnings

import keras
import numpy as np
import pytest
from loops_by_hand import BACKEND, KINDS, Loop

from keras_initkit import _compat, watch
from keras_initkit._compat import _jax, _moved

on_tensorflow, on_jax, on_torch = (
    pytest.mark.skipif(name != BACKEND, reason=f"names of {name}") for name in ("tensorflow", "jax", "torch")
)


def watched(kind):
    """Returns what a loop computes, the watched step, and what was said of names."""
    loop = Loop(kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step = watch(loop.step, loop.model, None, "batch", optimizer=loop.optimizer, on_finding="ignore")
        found = loop.train(2, step)
    np.testing.assert_equal(found, Loop(kind).train(2))
    return step, [str(each.message) for each in caught if "no longer has" in str(each.message)]


@pytest.fixture(autouse=True)
def anew():
    """Every test is warned anew."""
    _moved._WARNED.clear()
    _jax._knows_primal.cache_clear()


def test_an_optimizer_knows_its_variables():
    loop = Loop()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    assert _compat.optimized_variables(optimizer) == []
    optimizer.build(loop.model.trainable_variables)
    found = _compat.optimized_variables(optimizer)
    assert [id(each) for each in found] == [id(each) for each in loop.model.trainable_variables]


def test_an_optimizer_whose_variables_are_not_known(hide):
    hide(keras.optimizers.Optimizer, "_trainable_variables")
    step, said = watched(KINDS[-1])
    # Only where a step does not say itself what its gradients are of.
    assert len(said) == (BACKEND == "jax")
    assert all("takes an optimizer to train all the models' weights" in message for message in said)
    assert "update_ratio/a" in step.reports[0].scalars()


@on_tensorflow
@pytest.mark.parametrize("name", ["_clone", "_jit_compile", "_autograph"])
def test_a_function_of_tensorflow(name, hide):
    import tensorflow as tf

    assert _compat.tensorflow_is_compiled_by_xla(tf.function(abs, jit_compile=True)) is True
    assert _compat.tensorflow_is_compiled_by_xla(tf.function(abs)) is False
    assert _compat.tensorflow_function_like(tf.function(abs, jit_compile=True), abs)._jit_compile is True
    hide(type(tf.function(abs)), name)
    step, said = watched("compiled")
    (message,) = said
    assert "Please report it." in message
    assert [report.step for report in step.reports] == [0, 1]


@on_tensorflow
@pytest.mark.parametrize("moved", [False, True])
def test_a_step_that_autograph_converts(moved, take_away):
    """`if` and `while` on tensors, in the step and in what it calls."""
    import tensorflow as tf

    if moved:
        take_away("tensorflow.python.autograph.impl.api", "tf_convert")
    loop = Loop("compiled")
    plain = loop.step.python_function

    def step(x, y):
        n = tf.constant(0)
        while n < 2:
            n += 1
        if tf.reduce_sum(x) > 1e6:
            return tf.constant(-1.0)
        return plain(x, y) + tf.cast(n, tf.float32)

    found = watch(tf.function(step), loop.model, None, "batch", optimizer=loop.optimizer)
    losses, weights = loop.train(2, found)
    expected = Loop("compiled")
    own = expected.step
    np.testing.assert_equal((losses, weights), expected.train(2, lambda x, y: own(x, y) + 2.0))
    assert len(found.reports) == 2


@on_jax
def test_static_arguments_of_a_compiled_function():
    import jax

    step = functools.partial(jax.jit, static_argnums=0, static_argnames="last")(lambda kind, x, *, last: x)
    assert _compat.jax_jit_options(step) == {"static_argnums": (0,), "static_argnames": ("last",)}
    donating = _compat.jax_jit_options(jax.jit(abs, donate_argnums=0), donated=True)
    assert {name: given for name, given in donating.items() if given} == {"donate_argnums": (0,)}
    _moved._WARNED.clear()
    with pytest.warns(UserWarning, match="cannot measure functions with static arguments"):
        assert _compat.jax_jit_options(len) == {}


@on_jax
def test_what_is_computed_elsewhere(monkeypatch):
    import jax

    seen = []

    def step(x):
        scope = _compat.jax_trace(x)

        def inner(x):
            seen.append(_compat.jax_is_elsewhere(x, scope))
            return x.sum()

        return jax.grad(inner)(x) + jax.jit(inner)(x) + jax.grad(jax.jit(inner))(x) + jax.vmap(inner)(x[None])

    jax.jit(step)(np.ones(2))
    assert seen[:1] + seen[1:] == [False, True, True, True][: len(seen)]
    seen.clear()
    jax.grad(lambda x: (seen.append(_compat.jax_is_elsewhere(x, None)), x)[1])(1.0)
    assert seen == [False]  # nothing is compiled
    monkeypatch.setattr(_jax, "_knows_primal", lambda: False)
    with pytest.warns(UserWarning, match="first called in one, is read too"):
        assert not _compat.jax_is_elsewhere(1.0, None)


@on_torch
def test_a_compiled_function_knows_what_it_was_made_of():
    import torch

    def step(x):
        return x

    assert _compat.torch_before_compilation(step) is None
    assert _compat.torch_before_compilation(torch.compile(step)) is step
