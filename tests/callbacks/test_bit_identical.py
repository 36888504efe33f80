"""Training with LayerStatsCallback is training without it, to the last bit, in the ways that people use `fit`."""

import importlib
import random

import keras
import numpy as np
import pytest
from training_configurations import BACKEND, CONFIGURATIONS, with_policy

from keras_initkit.callbacks import LayerStatsCallback
from keras_initkit.report._scalars import STATISTICS

importlib.import_module(f"training_configurations_{BACKEND}")  # registers those of this backend alone

# Another program to compile, so not in all of them.
WITH_PRE_ACTIVATIONS = {"residual_cnn", "every_activation", "subclassed", "sigmoid", "eager", "jit", "mixed_float16"}
WITH_HISTOGRAMS = {"residual_cnn", "masked_recurrent", "subclassed", "loss_of_a_layers_output", "mixed_float16"}


def state_after_training(build, callbacks):
    """Variables by path, histories of all fits, and what random numbers come next."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    try:
        model, *actions = build()
    finally:
        with_policy("float32")
    histories = []
    for action in actions:
        if callable(action):
            action(model)
        else:
            histories.append(model.fit(verbose=0, callbacks=callbacks, **action).history)
    optimizers = [x for x in vars(model).values() if isinstance(x, keras.optimizers.Optimizer)]
    variables = [*model.variables, *model.metrics_variables]
    variables += [variable for optimizer in optimizers for variable in optimizer.variables]
    values = [(each.path, keras.ops.convert_to_numpy(each.value)) for each in variables]
    for layer in [model, *model._flatten_layers()]:
        assert not {"call", "add_loss", "train_step"} & set(vars(layer)), "something is left behind"
    assert not any({"apply", "stateless_apply"} & set(vars(optimizer)) for optimizer in optimizers)
    return values, histories, next_draws()


def next_draws():
    draws = [random.random(), np.random.normal(), float(keras.random.normal(()))]  # noqa: NPY002 (the global state)
    if BACKEND == "tensorflow":
        draws.append(float(importlib.import_module("tensorflow").random.uniform(())))
    if BACKEND == "torch":
        draws.append(float(importlib.import_module("torch").rand(())))
    return draws


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.filterwarnings("ignore")
def test_training_is_the_same_to_the_last_bit(name, record_property):
    build = CONFIGURATIONS[name]
    expected, expected_history, expected_draws = state_after_training(build, [])
    # First, plain and partial batches by turns.
    options = {"statistics": list(STATISTICS)} if name in WITH_PRE_ACTIVATIONS else {}
    callback = LayerStatsCallback(None, 2, histogram_freq=int(name in WITH_HISTOGRAMS), on_finding="ignore", **options)
    values, history, draws = state_after_training(build, [callback])
    assert [path for path, _ in values] == [path for path, _ in expected]
    different = {
        path: float(np.nanmax(np.abs(np.subtract(value, other, dtype="float64"))))
        for (path, value), (_, other) in zip(values, expected, strict=True)
        if value.tobytes() != other.tobytes()
    }
    assert not different
    np.testing.assert_equal(history, expected_history)
    assert draws == expected_draws
    assert_measured(callback, name)
    record_property("the same on", BACKEND)  # counted by conftest.py


def assert_measured(callback, name):
    reports = callback.reports
    assert len(reports) >= 2
    # Where nothing is built before an eager step, that step alone goes unmeasured.
    unbuilt = BACKEND == "tensorflow" and name == "subclassed_eager"
    assert reports[0].step == (2 if unbuilt else 1 if "steps_per_execution" in name else 0)
    for report in reports:
        assert report.statistic("weight_variance")
        inside = name == "function_inside_mixed_float16"  # where outputs cannot be read
        assert bool(report.statistic("activation_variance")) != inside
        if name != "nothing_to_train":
            assert report.statistic("weight_gradient_variance")
            assert bool(report.statistic("activation_gradient_variance")) != inside
            assert report.statistic("weight_update_variance")
        for statistic in ("pre_activation_variance", "pre_activation_gradient_variance"):
            assert bool(report.statistic(statistic)) == (name in WITH_PRE_ACTIVATIONS)
    assert any(row.histogram for row in reports[0].rows) == (name in WITH_HISTOGRAMS)


def test_how_many_configurations_there_are():
    assert len(CONFIGURATIONS) >= {"tensorflow": 30, "jax": 25, "torch": 25}[BACKEND]
