"""Private names of Keras that have moved cost a warning and what it says, and training is what it would have been."""

import importlib
import re
import warnings

import keras
import numpy as np
import pytest
from helpers import CROSS_ENTROPY, mlp
from keras import layers as L

from keras_initkit import _compat, initializers, probe
from keras_initkit._compat import _keras_names, _keras_tracing
from keras_initkit.structure import _stand_ins
from keras_initkit.structure._calls import calls

BACKEND = keras.backend.backend()
MASKING = "keras.src.backend.common.masking"
X = np.random.default_rng(0).standard_normal((16, 6)).astype("float32")
Y = np.arange(16) % 3
EARLY = _keras_tracing.IS_EARLY


@pytest.fixture
def hide_clear_losses(monkeypatch):
    real = _keras_tracing.replaced_in_this_thread

    def replaced(owner, name, change):
        if name == "_clear_losses":
            raise KeyError(name)
        return real(owner, name, change)

    monkeypatch.setattr(_keras_tracing, "replaced_in_this_thread", replaced)


def test_sublayers_are_found_without_the_list(hide, check_use):
    attention = L.MultiHeadAttention(2, 3)
    attention.others = {"one": [L.Dense(2, name="one")]}
    attention.again = attention.others
    attention.build((None, 4, 6), (None, 4, 6))
    model = mlp()
    expected = {id(each) for each in _compat.tracked_layers(attention)}
    assert id(attention.others["one"][0]) in expected
    hide(keras.Layer, "_layers")
    check_use("keras.Layer._layers", "in another order")
    assert {id(each) for each in _compat.tracked_layers(attention)} == expected
    assert _compat.tracked_layers(model) == model.layers


def test_a_trace_is_the_same_whatever_the_lists_of_variables_are_called(monkeypatch):
    model = mlp(L.MultiHeadAttention(1, 2, name="m"), kind=lambda parts: keras.Sequential(parts[:2]))
    expected = [(call.path, call.inputs, call.outputs) for call in calls(model)]
    weights = [id(each) for each in model.weights]
    monkeypatch.setattr(_stand_ins, "TRACKERS", frozenset())
    assert str([(call.path, call.inputs, call.outputs) for call in calls(model)]) == str(expected)
    assert [id(each) for each in model.weights] == weights


def test_calls_of_a_layer_that_cannot_be_counted(hide):
    layer = L.Dense(2)
    layer(keras.Input((2,)))
    hide(keras.Layer, "_inbound_nodes")
    with pytest.warns(UserWarning, match=r"no longer has keras.Layer._inbound_nodes; .* as comments"):
        assert _compat.calls_in_graphs(layer) == 0


def test_initializers_without_names(take_away, monkeypatch):
    monkeypatch.setattr(_keras_names, "KNOWS_REGISTERED", False)
    take_away("keras.src.initializers", "ALL_OBJECTS_DICT")
    with pytest.warns(UserWarning, match=r"no longer has keras\.src\.initializers\.ALL_OBJECTS_DICT; give layers"):
        _compat.name_initializers({"keras_initkit>Dirac": initializers.Dirac})
    assert L.Dense(2, kernel_initializer=initializers.Dirac()).kernel_initializer.get_config()


def test_nodes_stay_in_layers(take_away, check_use):
    take_away("keras.src.ops.operation", "Node")
    check_use("keras.src.ops.operation.Node", "symbolic tensors in its layers")


def test_a_trace_that_empties_losses(hide_clear_losses, check_use):
    check_use("keras.Layer._clear_losses", "empties its losses")


def test_names_and_seeds_that_are_not_put_back(take_away, check_use):
    take_away("keras.src.backend.common.global_state", "get_global_attribute")
    generator = _compat.seed_generator
    check_use("keras.src.backend.common.global_state", "number the names of later layers higher")
    keras.random.normal(())
    assert generator() is None
    _compat.set_seed_generator(None)  # does not take away the one that it has not found
    keras.utils.set_random_seed(1)
    with _compat.auto_names_kept():
        pass


def test_names_of_another_shape(monkeypatch):
    from keras.src.backend.common import global_state

    monkeypatch.setattr(global_state, "get_global_attribute", lambda name: ["a list"])
    says = pytest.warns(UserWarning, match="no longer has keras.src.backend.common.global_state")
    with says, _compat.auto_names_kept():
        pass


def test_the_generator_of_seeds_is_not_reset_by_one_that_was_not_found(take_away):
    keras.utils.set_random_seed(1)
    keras.random.normal(())
    from keras.src.backend.common import global_state

    before = global_state.get_global_attribute("global_seed_generator")
    take_away("keras.src.backend.common.global_state", "get_global_attribute")
    with pytest.warns(UserWarning, match=r"change what keras.random draws"):
        _compat.set_seed_generator(_compat.seed_generator())
    assert global_state.GLOBAL_STATE_TRACKER.global_seed_generator is before


def test_metrics_that_are_not_found(hide):
    model = mlp()
    model.compile("sgd", "mse", metrics=[lambda y, p: 0.0])
    assert len(_compat.metric_functions(model)) == 1
    hide(keras.Model, "_compile_metrics")
    with pytest.warns(UserWarning, match=r"no longer has keras.Model._compile_metrics; .* not judged"):
        assert _compat.metric_functions(model) == []


@pytest.mark.parametrize("gone", ["class", "attribute"])
def test_the_loss_of_a_probe_is_computed_by_another_model(gone, take_away, hide, monkeypatch):
    inputs = keras.Input((6,))
    regularized = L.Dense(3, "softmax", kernel_regularizer="l2", name="p")(inputs)
    model = keras.Model(inputs, [regularized, L.Dense(1, name="q")(inputs)])
    model.compile("adam", [CROSS_ENTROPY, "mse"], loss_weights=[2.0, 0.5])
    y, loss = [Y, X[:, :1]], {"p": CROSS_ENTROPY, "q": "mae"}
    weight = np.linspace(0, 1, len(X)).astype("float32")
    options = [{}, {"sample_weight": [weight, weight]}, {"loss": loss if not EARLY else [CROSS_ENTROPY, "mae"]}]
    expected = [probe(model, X, y, **each) for each in options]
    if gone == "class":
        take_away("keras.src.trainers.compile_utils", "CompileLoss")
    else:
        hide(keras.Model, "_compile_loss")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [probe(model, X, y, **each) for each in options]
    assert len({report.loss for report in expected}) == 3
    for report, other in zip(found, expected, strict=True):
        assert report.loss == pytest.approx(other.loss, rel=1e-6)
        for row, same in zip(report.rows, other.rows, strict=True):
            assert row.tap == same.tap
            assert row.moments.variance == pytest.approx(same.moments.variance, rel=1e-5, abs=1e-12)
    said = sorted(re.findall(r"no longer has (\S+);", " ".join(str(each.message) for each in caught)))
    of_class = ["keras.src.trainers.compile_utils.CompileLoss"]
    assert said == (of_class if gone == "class" else ["keras.Model._compile_loss", *of_class])


def test_a_model_that_computes_its_loss_itself_goes_on_doing_so(take_away):
    class Own(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **options):
            return 3 * keras.ops.mean(y_pred)

    model = mlp(kind=Own)
    model.compile("adam", CROSS_ENTROPY)
    expected = probe(model, X, Y).to_dict()
    take_away("keras.src.trainers.compile_utils", "CompileLoss")
    with pytest.warns(UserWarning, match=r"a loss that is given to probe is not used"):
        assert probe(model, X, Y).to_dict() == expected


@pytest.mark.skipif(EARLY, reason="Keras has no such functions yet")
def test_masks_are_copied_as_the_attribute_that_they_are(take_away):
    masked = L.Masking()(keras.ops.convert_to_tensor([[[1.0, 2.0], [0.0, 0.0]]]))
    other = keras.ops.copy(masked)
    get_keras_mask = importlib.import_module(MASKING).get_keras_mask
    take_away(MASKING, "get_keras_mask")
    with pytest.warns(UserWarning, match=r"no longer has keras.src.backend.common.masking.get_keras_mask; .* masks"):
        _compat.copy_keras_mask(masked, other)
    mask = get_keras_mask(other)
    if hasattr(masked, "_keras_mask"):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(mask), [[True, False]])
    else:
        assert BACKEND == "jax"  # early arrays take no attributes
        assert mask is None
