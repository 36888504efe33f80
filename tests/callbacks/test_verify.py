"""`verify` says whether a measured step is the plain one, to the last bit, and leaves the model unchanged."""

import random

import keras
import numpy as np
import pytest
from helpers import CROSS_ENTROPY, Subclassed, command_status, mlp
from keras import layers

import keras_initkit as ik
from keras_initkit import cli
from keras_initkit.callbacks import Difference, LayerStatsCallback
from keras_initkit.callbacks._verification import find_differences

BACKEND = keras.backend.backend()
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((12, 6)).astype("float32"), np.arange(12) % 3


def small(*inner):
    keras.utils.set_random_seed(1)
    model = mlp(*inner)
    model.compile("adam", CROSS_ENTROPY, metrics=["accuracy"])
    return model


def state(model):
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    values = {id(each): np.array(keras.ops.convert_to_numpy(each.value)).tobytes() for each in variables}
    return values, vars(model).get("train_function"), vars(model).get("history"), random.getstate()


def test_a_step_that_is_the_same():
    result = ik.verify(small(layers.Dropout(0.5), layers.BatchNormalization()), X, Y)
    assert result.equal
    assert result.measured
    assert result.differences == result.layers == ()
    assert str(result) == (
        "One step of 'sequential' is the same to the last bit with and without measuring: 9 weights and seeds, "
        "14 variables of optimizers, 4 of metrics, 2 logs."
    ).replace("'sequential'", repr(result.model))


@pytest.mark.parametrize("has_trained", [False, True])
def test_the_model_is_set_back(has_trained):
    model = small(layers.Dropout(0.5))
    if has_trained:
        model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    else:
        model.optimizer.build(model.trainable_variables)
    before = state(model)
    draws = np.random.get_state()[1].copy()  # noqa: NPY002 (the global state)
    assert ik.verify(model, X, Y).equal
    values, *others = state(model)
    assert {key: values[key] for key in before[0]} == before[0]
    assert others == list(before[1:])
    assert (np.random.get_state()[1] == draws).all()  # noqa: NPY002
    assert has_trained or not any(keras.ops.convert_to_numpy(each.value).any() for each in model.metrics_variables)
    assert not {"call", "train_step"} & {name for each in [model, *model.layers] for name in vars(each)}


def test_training_goes_on_as_if_it_had_not_been_called():
    def trained(look):
        keras.utils.set_random_seed(3)
        model = small(layers.Dropout(0.5))
        model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
        if look:
            ik.verify(model, X, Y)
        return model.fit(X, Y, batch_size=4, shuffle=False, verbose=0).history, model.get_weights()

    (history, weights), (expected, expected_weights) = trained(True), trained(False)
    assert history == expected
    assert all((a == b).all() for a, b in zip(weights, expected_weights, strict=True))


class Nudging(LayerStatsCallback):
    """Changes one bit of the last weight of layer `z` whenever it measures that layer."""

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if "z" in self._select_layers(self.model):
            bias = self.model.get_layer("z").bias
            value = keras.ops.convert_to_numpy(bias.value).copy()
            value[1] = np.nextafter(value[1], np.float32(1))
            bias.assign(value)


def test_a_difference_of_one_bit_and_the_layer_that_makes_it(monkeypatch):
    monkeypatch.setattr("keras_initkit.callbacks._verify.LayerStatsCallback", Nudging)
    model = small(layers.Dense(5, name="b"), layers.Dense(5, name="c"))
    result = ik.verify(model, X, Y)
    assert not result.equal
    assert result.repeats
    assert result.layers == ("z",)
    (difference,) = result.differences
    assert difference == Difference(f"weights/{model.get_layer('z').bias.path}", 1, 3, difference.largest, 1)
    assert 0 < difference.largest < 1e-9
    assert f"{difference.path}: 1 of 3 elements, by up to " in str(result)
    assert "(1 units in the last place)" in str(result)
    assert "The difference comes from reading 'z'" in str(result)
    assert "LayerStatsCallback(layers=...)" in str(result)


@pytest.mark.skipif(BACKEND == "jax", reason="there the readings are a program of their own")
def test_a_layer_that_looks_whether_it_is_measured():
    class Shy(layers.Dense):
        def call(self, inputs):
            outputs = super().call(inputs)
            return outputs * 1.01 if "call" in vars(self) else outputs

    result = ik.verify(small(Shy(4, name="shy")), X, Y)
    assert result.layers == ("shy",)
    assert "and " in str(result)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX keeps the number of the first call in its program")
def test_a_step_that_does_not_repeat_itself():
    class Unruly(keras.losses.Loss):
        def call(self, y, p):
            return keras.ops.mean(p, -1) * next_number()

    numbers = iter(np.linspace(1, 2, 100).astype("float32"))

    def next_number():
        return next(numbers)

    model = small()
    model.compile("sgd", Unruly(), run_eagerly=True)
    result = ik.verify(model, X, Y)
    assert not result.equal
    assert not result.repeats
    assert result.layers == ()
    assert "Plain steps from the same state differ among themselves too" in str(result)


def test_a_step_that_cannot_be_measured(monkeypatch):
    def broken(*_):
        raise RuntimeError("no taps")

    monkeypatch.setattr("keras_initkit.capture.step._meter.StepMeter._begin_step", broken)
    with pytest.warns(UserWarning, match=r"could not be measured \(RuntimeError: no taps\)"):
        result = ik.verify(small(), X, Y)
    assert result.equal
    assert not result.measured
    assert "could not be measured, and was the plain step" in str(result)


def test_subclassed_models_are_built_and_steps_run_together():
    model = Subclassed()
    model.compile("sgd", "mse", **({} if BACKEND == "torch" else {"steps_per_execution": 2}))
    assert ik.verify(model, X, X[:, :3], sample_weight=np.ones(12), batch_size=5).equal
    assert model.built


@pytest.mark.parametrize(
    ("type_", "first", "second", "units"),
    [
        ("float32", 1.0, 1.0 + 2**-23, 1),
        ("float32", -1e-45, 1e-45, 2),  # past zero
        ("float16", 1.0, 1.0 + 2**-9, 2),
        ("float64", 2.0, 2.0 - 2**-52, 1),
        ("int32", 3, 7, 4),
        ("uint32", 2**32 - 1, 2**32 - 3, 2),
    ],
)
def test_units_in_the_last_place(type_, first, second, units):
    arrays = np.array([0, first], type_), np.array([0, second], type_)
    (difference,) = find_differences(*({"a": array} for array in arrays))
    assert (difference.elements, difference.size, difference.units) == (1, 2, units)
    assert difference.largest == abs(float(arrays[0][1]) - float(arrays[1][1]))


def test_nothing_differs_between_equal_bits():
    assert not list(find_differences({"a": np.array([np.nan, 1])}, {"a": np.array([np.nan, 1])}))
    (zero,) = find_differences({"a": np.array(0.0)}, {"a": np.array(-0.0)})
    assert (zero.elements, zero.largest, zero.units) == (1, 0, 0)


def test_mistaken_arguments():
    with pytest.raises(ValueError, match=r"model: got .*, expected a keras.Model: verify\(model, x, y\)"):
        ik.verify("model", X, Y)
    with pytest.raises(ValueError, match=r"which is not compiled; .* Call model.compile\(optimizer, loss\) first"):
        ik.verify(mlp(), X, Y)
    with pytest.raises(ValueError, match="batch_size: got 0"):
        ik.verify(small(), X, Y, batch_size=0)
    with pytest.raises(ValueError, match=f"y: got 3 rows, expected {len(X)}, as many as the first array of x"):
        ik.verify(small(), X, Y[:3])
    for data in ([1.0, 2.0], iter([(X, Y)]), np.float32(1)):
        with pytest.raises(ValueError, match=r"x: got .*, expected arrays of shape \(examples, ...\). Take a batch"):
            ik.verify(small(), data, Y)
    with pytest.raises(ValueError, match="x: got no array"):
        ik.verify(small(), None)
    model = small()
    model.other = [keras.optimizers.Adam()]
    with pytest.raises(ValueError, match=r"an optimizer of which has no variables yet"):
        ik.verify(model, X, Y)


def test_the_command(tmp_path, capsys, monkeypatch):
    model = small(layers.Dense(5, name="b"))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    command = ["verify", str(tmp_path / "model.keras"), "--data", str(tmp_path / "data.npz")]
    assert cli.main([*command, "--batch", "4"]) == 0
    assert "is the same to the last bit with and without measuring" in capsys.readouterr().out
    monkeypatch.setattr("keras_initkit.callbacks._verify.LayerStatsCallback", Nudging)
    assert cli.main(command) == 1
    assert "The difference comes from reading 'z'" in capsys.readouterr().out
    mlp().save(tmp_path / "model.keras")
    assert cli.main(command) == 2
    assert "keras-initkit verify: error: model: got 'sequential" in capsys.readouterr().err
    assert command_status(*command[:-1], str(tmp_path / "none.npz")) == 2
    assert "none.npz' does not exist; expected an .npz file" in capsys.readouterr().err
