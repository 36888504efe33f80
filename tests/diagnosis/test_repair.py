"""repair: what it draws anew, what it leaves alone, and what it says."""

import keras
import numpy as np
import pytest
from helpers import dead_units

from keras_initkit.diagnosis import Finding, diagnose, repair

L = keras.layers
UNITS = 64


def finding(kind, layer, **changes):
    """A finding as `diagnose` makes them."""
    fields = {"step": 0, "severity": "error", "evidence": {"healthy": "another"}, "remedy": "Change something."}
    return Finding(kind, layer, **{**fields, **changes})


def mlp(**layers):
    """Three hidden relu layers `a`, `b`, `c` and a head; options by layer."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([L.Input((32,))])
    for name in "abc":
        options = {"kernel_initializer": "he_normal", **layers.get(name, {})}
        model.add(L.Dense(UNITS, "relu", name=name, **options))
    model.add(L.Dense(3, name="head", **layers.get("head", {})))
    return model


def inputs():
    return np.random.default_rng(0).standard_normal((256, 32)).astype("float32")


def weights_of(model):
    """Every weight by its path."""
    return {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights}


def changed(before, model):
    """Paths of the weights that are not what they were, to the last bit."""
    return {path for path, values in weights_of(model).items() if values.tobytes() != before[path].tobytes()}


def test_a_dead_layer_is_drawn_anew_and_the_others_are_not_touched():
    model = mlp(b={"bias_initializer": keras.initializers.Constant(-100.0)})
    before, x = weights_of(model), inputs()
    report = repair(model, diagnose(model, x), x)
    assert changed(before, model) == {f"{model.name}/b/kernel", f"{model.name}/b/bias"}
    outputs = keras.Model(model.inputs, model.get_layer("b").output)(x)
    assert not dead_units(keras.ops.convert_to_numpy(outputs)).any()
    # He's variance; five standard errors of a variance of n truncated normals (kurtosis 2.6 after rescaling).
    kernel = keras.ops.convert_to_numpy(model.get_layer("b").kernel)
    assert np.mean(kernel**2) == pytest.approx(2 / UNITS, rel=5 * np.sqrt(2 / kernel.size))
    assert report.notes[0].startswith("repair: b/kernel re-initialized for dead_units: own relu")
    assert "repair: b/bias set to zero: units are dead or saturated" in report.notes
    assert diagnose(report, model=model) == []


def test_layers_of_equal_units_are_all_drawn_each_from_a_draw_of_its_own():
    zeros = {"kernel_initializer": "zeros"}
    model = mlp(a=zeros, b=zeros, c=zeros, head=zeros)
    x = inputs()
    repair(model, diagnose(model, x), x)
    kernels = [keras.ops.convert_to_numpy(model.get_layer(name).kernel) for name in ("a", "b", "c", "head")]
    assert all(len(np.unique(kernel, axis=1).T) == kernel.shape[1] for kernel in kernels)
    assert not np.array_equal(kernels[1], kernels[2])


def test_a_head_of_one_value_is_drawn_with_the_units_that_it_makes_equal_and_a_head_of_zeros_is_not():
    for head, also in (("ones", {"head/kernel"}), ("zeros", set())):
        model = mlp(c={"kernel_initializer": "ones"}, head={"kernel_initializer": head})
        before = weights_of(model)
        repair(model, [finding("symmetric_units", "c")])
        assert changed(before, model) == {f"{model.name}/{path}" for path in {"c/kernel", *also}}


def test_a_bias_is_set_to_zero_though_another_finding_names_the_layer_first():
    model = mlp(b={"bias_initializer": keras.initializers.Constant(-100.0)})
    findings = [finding("vanishing_activation", "b"), finding("dead_units", "b", consequence_of="vanishing_activation")]
    repair(model, findings)
    assert not keras.ops.convert_to_numpy(model.get_layer("b").bias).any()


def test_what_follows_from_another_fault_and_what_is_no_initialization_stay():
    model = mlp()
    before = weights_of(model)
    findings = [
        finding("unscaled_input", "a", remedy="Put keras.layers.Normalization() first."),
        finding("dead_units", "b", consequence_of="unscaled_input"),
        finding("update_too_large", "c"),
        finding("rank_collapse", "c", severity="info"),
    ]
    report = repair(model, findings)
    assert changed(before, model) == set()
    assert report.notes[:3] == (
        "repair: nothing was changed; none of the findings is about initialization.",
        "repair: unscaled_input in a is left to you. Put keras.layers.Normalization() first.",
        "repair: update_too_large in c is left to you. Change something.",
    )


def test_wrong_fans_are_mended_even_where_they_are_mere_information():
    model = mlp()
    before = weights_of(model)
    repair(model, [finding("wrong_fans", "b", severity="info"), finding("initializer_mismatch", "c", severity="info")])
    assert changed(before, model) == {f"{model.name}/b/kernel"}


def test_a_layer_without_weights_stands_for_those_before_it_back_to_a_kernel():
    keras.utils.set_random_seed(0)
    given = L.Input((32,))
    x = L.BatchNormalization(beta_initializer=keras.initializers.Constant(-50.0), name="norm")(
        L.Dense(UNITS, name="b")(L.Dense(UNITS, "relu", name="a")(given))
    )
    model = keras.Model(given, L.Dense(3, name="head")(L.ReLU(name="relu")(x)))
    before = weights_of(model)
    repair(model, [finding("dead_units", "relu")], inputs())
    assert changed(before, model) == {"b/kernel", "norm/beta"}  # its scale is one and its bias zero already
    assert not keras.ops.convert_to_numpy(model.get_layer("norm").beta).any()


def test_a_forget_gate_keeps_its_bias_of_one():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            L.Input((6, 5)),
            L.LSTM(8, name="lstm", bias_initializer=keras.initializers.Constant(40.0), unit_forget_bias=False),
            L.Dense(2),
        ]
    )
    cell = model.get_layer("lstm").cell
    cell.unit_forget_bias = True
    repair(model, [finding("saturated_units", "lstm")])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(cell.bias), np.repeat([0, 1, 0, 0], 8))


def test_layers_with_weights_that_are_not_finite_are_drawn_wherever_the_finding_saw_them():
    model = mlp()
    kernel = np.array(model.get_layer("b").kernel)
    kernel[0, 0] = np.nan
    model.get_layer("b").kernel.assign(kernel)
    before = weights_of(model)
    repair(model, [finding("nonfinite", "c")])
    assert changed(before, model) == {f"{model.name}/b/kernel"}
    assert np.isfinite(model.get_layer("b").kernel).all()


def test_a_layer_that_is_still_named_is_scaled_on_the_data_once(monkeypatch):
    from importlib import import_module

    module = import_module("keras_initkit.diagnosis._repair")
    always = [finding("vanishing_activation", "b")]
    monkeypatch.setattr(module, "diagnose_model", lambda *arguments, **options: always)
    model, x = mlp(), inputs()
    report = repair(model, always, x)
    own = [note for note in report.notes if note.startswith("repair")]
    assert [note.split(" for ")[0] for note in own] == [
        "repair: b/kernel re-initialized",
        "repair: b/kernel scaled on the data",
    ]
    (pre_activation,) = [row for row in report.rows if row.tap[:2] == ("pre_activation", "b")]
    assert pre_activation.moments.variance == pytest.approx(1, rel=0.02)  # lsuv's own tolerance is 1 %
    assert len([note for note in repair(model, always).notes if note.startswith("repair")]) == 1  # no data to scale on


def test_labels_make_the_gradients_those_of_the_loss():
    model = mlp(b={"kernel_initializer": "zeros"})
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = inputs(), np.arange(256) % 3
    report = repair(model, diagnose(model, x, y), x, y)
    assert not any("drawn from N(0, 1)" in note for note in report.notes)


def test_loss_is_passed_on():
    model = mlp(b={"kernel_initializer": "zeros"})
    x, y = inputs(), np.arange(256) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    report = repair(model, diagnose(model, x, y, loss=loss), x, y, loss=loss)
    assert not any("drawn from N(0, 1)" in note for note in report.notes)
    with pytest.raises(ValueError, match=r"^loss: got None with labels"):
        diagnose(model, x, y)


@pytest.mark.parametrize("form", ["pair", "keyword", "keyword pair"])
def test_data_and_a_pair_still_work_and_say_what_to_write(form):
    model, x, y = mlp(), inputs(), np.arange(256) % 3
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = x if form == "keyword" else (x, y)
    arguments, options = ((data,), {}) if form == "pair" else ((), {"data": data})
    written = "x" if form == "keyword" else "x, y"
    with pytest.warns(DeprecationWarning, match=rf"write repair\(model, findings, {written}\)\.$") as seen:
        report = repair(model, [], *arguments, **options)
    assert any("drawn from N(0, 1)" in note for note in report.notes) == (form == "keyword")
    assert seen[0].filename == __file__
    with pytest.raises(ValueError, match=r"^data: got data= beside x or y, expected repair\(model, findings, x, y\)"):
        repair(model, [], x, data=x)


def test_a_tuple_for_a_model_of_two_inputs_is_its_inputs():
    first, second = L.Input((4,)), L.Input((4,))
    model = keras.Model([first, second], L.Dense(3)(L.Add()([first, second])))
    x = (np.ones((8, 4)), np.ones((8, 4)))
    assert repair(model, [], x).layers
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.warns(DeprecationWarning, match="write repair"):
        report = repair(model, [], (x, np.zeros(8, int)))
    assert not any("drawn from N(0, 1)" in note for note in report.notes)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(([], mlp), "model"), ((mlp, mlp), "findings"), ((mlp, [3]), "findings"), ((mlp, inputs), "findings")],
)
def test_swapped_arguments_are_refused_by_name(arguments, name):
    arguments = [each() if callable(each) else each for each in arguments]
    with pytest.raises(ValueError, match=rf"^{name}: got .*, expected "):
        repair(*arguments)


def test_a_finding_about_another_model_is_refused():
    with pytest.raises(ValueError, match=r"names layer 'elsewhere', which .* does not have. Repair the model that"):
        repair(mlp(), [finding("dead_units", "elsewhere")])
