"""The verb: what it keeps, what it refuses, and that it is all or nothing."""

import random
import warnings

import keras
import numpy as np
import pytest
from helpers import state_of, values
from keras import layers as L

import keras_initkit as ik
from keras_initkit.schemes import register_scheme

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 8)).astype("float32"), np.arange(16) % 3


def compiled_model(dropout=0.3):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            L.Dense(16, name="one", trainable=False),
            L.BatchNormalization(name="norm"),
            L.ReLU(),
            L.Dropout(dropout, seed=3),
            L.Dense(3, "softmax", name="head"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def equal(before, after):
    return all((a == b).all() for (_, a), (_, b) in zip(before, after, strict=True))


@register_scheme("test_half_done")
def half_done(plan, error=RuntimeError, beside=False):
    for kernel in plan.kernels[:1]:
        plan.assign(kernel.variable, np.zeros(kernel.variable.shape))
    if beside:  # not by the plan
        plan.kernels[-1].variable.assign(np.zeros(plan.kernels[-1].variable.shape))
        plan.model.get_layer("norm").moving_mean.assign(np.ones(16))
    if error is not None:
        raise error("on the way")


@pytest.mark.parametrize("scheme", ["he_normal", "orthogonal", "auto", "lsuv"])
def test_everything_but_kernels_and_biases_stays(scheme):
    model = compiled_model()
    model.fit(X, Y, verbose=0)
    before, flags = dict(state_of(model)), [layer.trainable for layer in model.layers]
    optimizer, loss = model.optimizer, model.loss
    python, legacy = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    ik.initialize(model, scheme, X, Y, seed=1)
    assert random.getstate() == python
    assert (np.random.get_state()[1] == legacy).all()  # noqa: NPY002
    changed = {path for path, values in state_of(model) if (values != before[path]).any()}
    assert changed == {"one/kernel", "head/kernel", "head/bias"}  # the frozen layer's bias has been 0 all along
    assert [layer.trainable for layer in model.layers] == flags
    assert model.optimizer is optimizer
    assert model.loss == loss
    history = model.fit(X, Y, verbose=0).history["loss"]  # what was compiled for the old weights runs on the new
    assert np.isfinite(history).all()


def test_the_compiled_model_computes_with_the_new_weights(tmp_path):
    model = compiled_model()
    before = model.predict(X, verbose=0)
    ik.initialize(model, "he_normal", seed=1)
    after = model.predict(X, verbose=0)
    assert abs(after - before).max() > 1e-3
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(X, verbose=0), after, rtol=1e-6)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_whatever_fails_leaves_the_weights(error):
    model = compiled_model()
    model.fit(X, Y, verbose=0)
    before = state_of(model)
    with pytest.raises(error, match="on the way"):
        ik.initialize(model, "test_half_done", error=error, beside=True)
    assert equal(before, state_of(model))


def test_what_is_not_set_through_the_plan_is_put_back():
    model = compiled_model()
    before = dict(state_of(model))
    report = ik.initialize(model, "test_half_done", error=None, beside=True)
    changed = {path for path, values in state_of(model) if (values != before[path]).any()}
    assert changed == {"one/kernel"}
    assert report.skipped["head/kernel"] == "no scheme touches it"


def test_values_that_are_not_finite_or_do_not_fit_are_refused():
    model = compiled_model()
    before = state_of(model)

    @register_scheme("test_bad_values")
    def bad(plan, values=None):
        plan.assign(plan.kernels[1].variable, np.zeros(plan.kernels[1].variable.shape))
        plan.assign(plan.kernels[0].variable, values)

    with pytest.raises(ValueError, match="one: the scheme's values for kernel are not all finite"):
        ik.initialize(model, "test_bad_values", values=np.full((8, 16), np.nan))
    with pytest.raises(ValueError, match=r"one: .* have shape \(2, 2\), expected \(8, 16\)"):
        ik.initialize(model, "test_bad_values", values=np.ones((2, 2)))
    assert equal(before, state_of(model))


def test_layers_left_out_stay():
    model = compiled_model()
    before = dict(state_of(model))
    report = ik.initialize(model, "he_normal", layers="head")
    assert {path for path, values in state_of(model) if (values != before[path]).any()} == {"head/kernel"}
    assert report.skipped["one/kernel"] == "left out by `layers`"
    assert ("head/kernel" in report.skipped, "head/bias" in report.skipped) == (False, False)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.two = L.Dense(16, "relu", name="one"), L.Dense(2, name="two")

    def call(self, x):
        return self.two(self.one(x))


def test_an_unbuilt_model_is_built_by_the_data():
    for model in (Subclassed(), keras.Sequential([L.Dense(16, "relu", name="one"), L.Dense(2, name="two")])):
        with pytest.raises(ValueError, match=r"model: .* is not built, .* Pass x, start the model with keras.Input"):
            ik.initialize(model, "he_normal")
        report = ik.initialize(model, "he_normal", X, seed=0)
        assert [change.layer for change in report.kernels] == ["one", "two"]
        assert all(change.forward_after is not None for change in report.kernels)
        ik.initialize(model, "lsuv", X[:5])  # a batch of any size fits
        # He's rule for 8 inputs: mean square 2 / 8, of which 128 and 32 elements tell the rest.
        assert report.kernels[0].scale == pytest.approx(2, rel=5 * np.sqrt(1.37 / 128))


def test_shared_and_nested_layers_are_set_once():
    shared = L.Dense(8, "relu", name="shared")
    inner = keras.Sequential([keras.Input((8,)), shared, L.Dense(8, name="inside")], name="inner")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, L.Dense(1, name="head")(inner(shared(inputs))))
    report = ik.initialize(model, "he_normal", X)
    assert [change.layer for change in report.kernels] == ["shared", "inner/inside", "head"]
    assert not report.skipped


def test_weights_that_are_not_to_be_set_are_named():
    lora = L.Dense(4, name="lora")
    inputs = keras.Input((8,))
    x = L.Dense(8, name="packed")(lora(inputs))
    model = keras.Model(inputs, L.Dense(1, name="head")(x))
    lora.enable_lora(2)
    if hasattr(keras.layers.Dense, "quantize"):
        model.get_layer("packed").quantize("int8")
    before = dict(state_of(model))
    report = ik.initialize(model, "he_normal")
    assert all("LoRA" in report.skipped[f"lora/{weight.name}"] for weight in lora.weights)
    assert {path for path, v in state_of(model) if (v != before[path]).any() and "lora" in path} == set()
    if getattr(model.get_layer("packed"), "quantization_mode", None):
        assert report.skipped["packed/kernel"] == "its layer is quantized (int8)"
        assert not any((v != before[path]).any() for path, v in state_of(model) if "packed" in path)
    assert "head/kernel" not in report.skipped


class Scaled(L.Layer):
    """A layer inside, and a weight of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = L.Dense(8, name="inner")

    def build(self, shape):
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(8,), initializer="ones", name="scale")

    def call(self, x):
        return self.inner(x) * self.scale


def test_a_composite_layer_owns_its_own_weights_only():
    model = keras.Sequential([keras.Input((8,)), Scaled(name="scaled"), L.Dense(2, name="head")])
    report = ik.initialize(model, "reset", layers=lambda layer: isinstance(layer, Scaled))
    assert {f"{change.layer}/{change.name}" for change in report.weights if not change.skipped} == {"scaled/scale"}
    report = ik.initialize(model, "he_normal")
    assert [change.layer for change in report.kernels] == ["scaled/inner", "head"]
    assert report.skipped == {"scaled/scale": "it multiplies a signal element by element; nothing is summed"}


class Counts(L.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(4, 4), dtype="int32", initializer="zeros", trainable=False, name="table")
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale


def test_integers_and_weights_that_are_no_kernels_are_listed():
    model = keras.Sequential([keras.Input((8,)), Counts(name="counts"), L.Dense(2, name="head")])
    report = ik.initialize(model, "he_normal")
    assert report.skipped == {
        "counts/table": "no scheme touches it",
        "counts/scale": "it multiplies a signal element by element; nothing is summed",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "he_norml"}, "scheme: got 'he_norml', expected one of .*'auto'.* Did you mean 'he_normal'"),
        ({"scheme": "lsvu"}, "Did you mean 'lsuv'"),
        ({"scheme": "keras_initkit>ActivationScalin"}, "Did you mean 'keras_initkit>ActivationScaling'"),
        ({"scheme": np.zeros((8, 6))}, r"(?s)scheme: got array.*, expected .*: initialize\(model, scheme, x, y\)"),
        ({"scheme": None}, "scheme: got None, expected an initializer, its name"),
        ({"scheme": 3}, "scheme: got 3, expected an initializer, its name"),
        ({"scheme": "he_normal", "gain": 2}, "gain: got an option, but 'he_normal' is an initializer, which has none"),
        (
            {"scheme": "auto", "distributon": "uniform"},
            "distributon: 'auto' has no such .* 'distribution'. Did",
        ),
        ({"scheme": "fixup", "depth": 3}, "depth: 'fixup' has no such option; it has none"),
        ({"scheme": "auto", "distribution": "cauchy"}, "distribution: got 'cauchy', expected one of"),
        ({"scheme": "he_normal", "seed": 1.5}, "seed: got 1.5, expected an integer of at least 0"),
        ({"scheme": "he_normal", "seed": -1}, "seed: got -1"),
        (
            {"scheme": "he_normal", "layers": "hed"},
            "layers: got 'hed', which matches no layer with weights; near names: head",
        ),
        ({"scheme": "he_normal", "x": X[:, :5]}, r"got shape \(16, 5\), expected \(None, 8\)"),
        ({"scheme": "he_normal", "x": X, "y": Y[:4]}, "y: got 4 examples, expected 16, as in x"),
        ({"scheme": "he_normal", "x": X, "y": Y + 5}, "y: got numbers from 5 to 7, expected classes 0 to 2"),
        (
            {"scheme": "he_normal", "x": (X, Y, Y, Y)},
            "x: got a tuple of 4, expected examples. Pass several inputs as a",
        ),
        ({"scheme": "he_normal", "data": (X, Y, Y, Y)}, "data: got a tuple of 4"),
        (
            {"scheme": "he_normal", "data": X, "x": X},
            r"data: got data= beside x or y, expected initialize\(model, scheme",
        ),
        ({"scheme": "he_normal", "y": Y}, "y: got labels without examples, expected x and y"),
    ],
)
def test_errors_before_anything_has_changed(arguments, message):
    model = compiled_model()
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        ik.initialize(model, **arguments)
    assert equal(before, state_of(model))


@pytest.mark.parametrize(
    ("old", "new", "written"),
    [
        ({"data": (X, Y)}, (X, Y), "x, y"),
        ({"data": X}, (X,), "x"),
        ({"x": (X, Y)}, (X, Y), "x, y"),
        ({"x": (X,)}, (X,), "x"),
        ({"data": (X, None)}, (X,), "x"),
    ],
)
def test_data_and_pairs_warn_and_work(old, new, written):
    model, twin = compiled_model(), compiled_model()
    twin.set_weights(model.get_weights())
    with pytest.warns(DeprecationWarning, match=rf"write initialize\(model, scheme, {written}\)\.$") as seen:
        report = ik.initialize(model, "he_normal", seed=1, **old)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Passing data=")
        expected = ik.initialize(twin, "he_normal", *new, seed=1)
    assert [change.backward_after for change in report.kernels] == [c.backward_after for c in expected.kernels]
    assert (report.kernels[0].backward_after is None) == (written == "x")


def test_a_tuple_for_a_model_of_two_inputs_is_its_inputs():
    first, second = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([first, second], keras.layers.Dense(3)(keras.layers.Add()([first, second])))
    x = [np.ones((8, 4)), np.eye(8, 4)]
    reports = [ik.initialize(model, "he_normal", given, seed=1) for given in (x, tuple(x))]
    assert reports[0].kernels[0].forward_after == reports[1].kernels[0].forward_after > 0


def test_arguments_in_another_order_are_named():
    model = compiled_model()
    for arguments in (("auto", model), (X, model), ("auto", model, X), (X, "auto")):
        with pytest.raises(
            ValueError, match=r"model: got .* expected a keras.Model: initialize\(model, scheme, x, y\)"
        ):
            ik.initialize(*arguments)
    with pytest.raises(ValueError, match=r"(?s)^scheme: got array.*: initialize\(model, scheme, x, y\)"):
        ik.initialize(model, X, "auto")


NAMES = [
    "activation_scaling",
    "ActivationScaling",
    "keras_initkit>ActivationScaling",
    ik.initializers.ActivationScaling,
]


@pytest.mark.parametrize(
    "scheme",
    [
        *NAMES,
        ik.initializers.ActivationScaling(),
        keras.initializers.serialize(ik.initializers.ActivationScaling()),
        lambda layer: "activation_scaling",
    ],
)
def test_an_initializer_may_be_given_in_every_form(scheme):
    model, twin = compiled_model(), compiled_model()
    ik.initialize(model, scheme, seed=1)
    ik.initialize(twin, ik.initializers.ActivationScaling(), seed=1)
    assert (values(model.get_layer("one").kernel) == values(twin.get_layer("one").kernel)).all()


def test_seeds_may_be_numpy_integers():
    report = ik.initialize(compiled_model(), "he_normal", seed=np.int64(4))
    assert (report.seed, type(report.seed)) == (4, int)


def test_models_that_are_none():
    with pytest.raises(ValueError, match="model: got 3, expected a keras"):
        ik.initialize(3, "he_normal")
    with pytest.raises(ValueError, match="has no weights, so there is nothing to initialize"):
        ik.initialize(keras.Sequential([keras.Input((2,)), L.ReLU()]), "he_normal")


def test_schemes_of_ones_own():
    @register_scheme("test_constant")
    def constant(plan, value, **more):
        for kernel in plan.kernels:
            plan.assign(kernel.variable, np.full(kernel.variable.shape, value))

    model = compiled_model()
    ik.initialize(model, "test_constant", value=2.0, anything=1)
    assert (values(model.get_layer("one").kernel) == 2).all()
    with pytest.raises(ValueError, match="value: 'test_constant' requires this option"):
        ik.initialize(model, "test_constant")
    with pytest.raises(ValueError, match="name: got 'he_normal', expected a string that is not the name"):
        register_scheme("he_normal")
    with pytest.raises(ValueError, match=r"^function: got 3, expected a function of a plan"):
        register_scheme("test_no_function")(3)


def test_a_name_of_a_scheme_is_taken_once():
    from keras_initkit.schemes._registry import find_scheme

    auto, other = find_scheme("auto"), lambda plan: None
    with pytest.raises(ValueError, match=r"^name: got 'auto', .*; expected a new name\. Pass replace=True"):
        register_scheme("auto")(other)
    assert find_scheme("auto") is register_scheme("auto")(auto)  # a module that is imported again
    register_scheme("auto", replace=True)(other)
    try:
        model = compiled_model()
        before = state_of(model)
        ik.initialize(model, "auto")
        assert equal(before, state_of(model))
    finally:
        register_scheme("auto", replace=True)(auto)


def test_names_of_schemes_may_be_strings_of_numpy():
    for name in ("he_normal", "auto"):
        report = ik.initialize(compiled_model(), np.str_(name), seed=np.int64(3))
        assert (type(report.scheme), type(report.seed)) == (str, int)


def test_half_precision_weights():
    model = keras.Sequential([keras.Input((64,)), L.Dense(256, dtype="float16"), L.Dense(256, dtype="mixed_bfloat16")])
    report = ik.initialize(model, "orthogonal", X.repeat(8, axis=1))
    for change in report.kernels:
        assert change.scale == pytest.approx(min(change.fans) / 256, rel=5e-3)
    assert [layer.kernel.dtype for layer in model.layers] == ["float16", "float32"]
