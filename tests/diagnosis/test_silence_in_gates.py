"""Kernels whose scale a gate bounds: those before a gate of squeeze and excite, and the inputs of recurrent layers."""

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_initkit import diagnose, probe
from keras_initkit.diagnosis.context._model_context import ModelContext

pytestmark = pytest.mark.one_backend

X = np.random.default_rng(0).standard_normal((64, 8, 8)).astype("float32")


def alarms(model, factor, *pattern):
    """Errors and warnings about a model whose kernels of these paths are scaled."""
    for variable in model.trainable_variables:
        if variable.path in pattern:
            variable.assign(variable.value * factor)
    return {(f.kind, f.layer): f.severity for f in diagnose(model, X) if f.severity != "info"}


def excited(bounded=True):
    keras.utils.set_random_seed(0)
    given = keras.Input((8, 8))
    x = L.Dense(16, "relu", kernel_initializer="he_normal", name="stem")(given)
    gate = L.Dense(12, "relu", name="squeeze")(L.GlobalAveragePooling1D()(x))
    gate = L.Reshape((1, 16))(L.Dense(16, "sigmoid" if bounded else None, name="excite")(gate))
    return keras.Model(given, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(L.Multiply()([x, gate]))))


def test_what_only_makes_a_gate_may_be_small():
    assert ModelContext(excited()).only_gating >= {"squeeze", "excite"}
    assert "stem" not in ModelContext(excited()).only_gating
    for factor in (0.01, 0.1, 1.0):
        assert not alarms(excited(), factor, "squeeze/kernel")
    assert alarms(excited(), 30.0, "squeeze/kernel")["initializer_mismatch", "squeeze"] == "error"
    assert "squeeze" not in ModelContext(excited(bounded=False)).only_gating  # it scales what it multiplies
    assert ("initializer_mismatch", "squeeze") in alarms(excited(bounded=False), 0.1, "squeeze/kernel")


@pytest.mark.parametrize("layer", [L.LSTM, L.GRU])
@pytest.mark.parametrize("factor", [0.01, 0.1, 1.0, 10.0, 100.0])
def test_gates_bear_input_kernels_of_any_scale(layer, factor):
    keras.utils.set_random_seed(0)
    given = keras.Input((8, 8))
    x = layer(32, name="second")(layer(32, return_sequences=True, name="first")(given))
    kernel = f"first/{layer.__name__.lower()}_cell/kernel"
    assert not alarms(keras.Model(given, L.Dense(3, name="head")(x)), factor, kernel)


@pytest.mark.parametrize(("scaled", "named"), [((), 0), ((0,), 0), ((0, 1), 0), ((0, 1, 2), 3), ((0, 1, 2, 3), 4)])
def test_half_of_the_gates_may_be_saturated(scaled, named):
    keras.utils.set_random_seed(0)
    x = given = keras.Input((8, 8))
    for number in range(4):
        gate = L.Dense(8, "sigmoid", name=f"gate_{number}")(x)
        x = L.Add()([x, L.Multiply()([L.Dense(8, name=f"value_{number}")(x), gate])])
    model = keras.Model(given, L.Dense(3, name="head")(x))
    for number in scaled:
        kernel = model.get_layer(f"gate_{number}").kernel
        kernel.assign(kernel.value * 300)
    report = probe(model, X)
    found = {f.layer for f in diagnose(report, model=model) if f.kind == "saturated_units"}
    assert found == {f"gate_{number}" for number in scaled[:named]}
    assert {layer for layer, healthy in report.healthy.items() if not healthy and "gate" in layer} == found
