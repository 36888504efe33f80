"""Private names of Keras and the frameworks still hold what `keras_initkit._compat` reads in them."""

import threading

import keras
import numpy as np
import pytest

from keras_initkit import _compat
from keras_initkit._compat import _keras_names
from keras_initkit.initializers import ActivationScaling

L = keras.layers
BACKEND = keras.backend.backend()


def test_tracked_layers_are_those_of_the_public_list_of_a_model():
    inputs = keras.Input((2,))
    shared = L.Dense(2, name="shared")
    functional = keras.Model(inputs, shared(shared(inputs)))
    assert _compat.tracked_layers(functional) == functional.layers
    sequential = keras.Sequential([keras.Input((2,)), functional, L.ReLU()])
    tracked = [layer for layer in _compat.tracked_layers(sequential) if not isinstance(layer, L.InputLayer)]
    assert tracked == sequential.layers
    attention = L.MultiHeadAttention(2, 3)
    attention.build((None, 4, 6), (None, 4, 6))
    assert {"query", "value", "key"} < {part.name for part in _compat.tracked_layers(attention)}


def test_a_name_in_the_table_of_initializers_is_one_for_layers(monkeypatch):
    from keras.src.initializers import ALL_OBJECTS_DICT

    assert ALL_OBJECTS_DICT["he_normal"] is keras.initializers.HeNormal
    monkeypatch.setattr(_keras_names, "KNOWS_REGISTERED", False)
    name = "keras_initkit>ActivationScaling"
    monkeypatch.setitem(ALL_OBJECTS_DICT, name, None)  # put back afterwards
    _compat.name_initializers({name: ActivationScaling})
    assert ALL_OBJECTS_DICT[name] is ActivationScaling
    assert isinstance(L.Dense(2, kernel_initializer=name).kernel_initializer, ActivationScaling)


def test_calls_of_a_layer_are_counted():
    layer = L.Dense(2)
    assert _compat.calls_in_graphs(layer) == 0
    layer(layer(keras.Input((2,))))
    assert _compat.calls_in_graphs(layer) == 2


def test_the_lists_of_variables_are_among_a_layers_attributes():
    layer = L.BatchNormalization()
    layer.build((None, 2))
    assert set(vars(layer)) >= _compat.TRACKERS
    assert layer._trainable_variables == layer.trainable_variables
    assert layer._non_trainable_variables == layer.non_trainable_variables


def test_symbolic_calls_leave_nothing_behind():
    layer = L.Dense(3)
    model = keras.Sequential([keras.Input((3,)), layer])
    nodes = [len(layer._inbound_nodes), len(layer._outbound_nodes)]
    layer._losses.append("a loss")
    with _compat.auto_names_kept(), _compat.graph_nodes_off():
        kept = L.ReLU().name
        made = _compat.symbolic_call(model)(keras.KerasTensor((2, 3)))
    assert isinstance(made, keras.KerasTensor)
    assert [len(layer._inbound_nodes), len(layer._outbound_nodes)] == nodes
    assert layer._losses == ["a loss"]
    assert L.ReLU().name == kept
    layer._losses.clear()
    inputs = keras.Input((3,))
    assert keras.Model(inputs, layer(inputs)).count_params() == 12  # graphs are made as before


def test_every_variable_is_an_instance_of_one_class():
    layer = L.Dense(2)
    layer.build((None, 2))
    assert isinstance(layer.kernel, _compat.VARIABLE)
    assert isinstance(keras.Variable(1.0), _compat.VARIABLE)
    assert not isinstance(keras.KerasTensor((1,)), _compat.VARIABLE)


def test_the_generator_of_seeds_is_found_once_it_is_needed():
    keras.backend.clear_session()
    assert _compat.seed_generator() is None
    keras.utils.set_random_seed(1)
    keras.random.normal(())
    generator = _compat.seed_generator()
    assert isinstance(generator, keras.random.SeedGenerator)
    state = keras.ops.convert_to_numpy(generator.state.value).copy()
    keras.random.normal(())
    assert not np.array_equal(state, keras.ops.convert_to_numpy(generator.state.value))  # the one that is drawn from
    _compat.set_seed_generator(None)
    assert _compat.seed_generator() is None
    _compat.set_seed_generator(generator)
    assert _compat.seed_generator() is generator


def compiled_model(**options):
    model = keras.Sequential([keras.Input((2,)), L.Dense(3, "softmax")])
    model.compile("sgd", **options)
    return model


def test_functions_are_told_from_other_metrics():
    def own(y, p):
        return keras.ops.mean(p)

    model = compiled_model(loss="mse", metrics=["accuracy", own, keras.metrics.Mean()])
    assert _compat.metric_functions(model) == [own]
    assert _compat.metric_functions(compiled_model(loss="mse")) == []
    assert _compat.metric_functions(keras.Sequential()) == []


def test_a_fresh_loss_is_like_that_of_compile_and_not_built():
    model = compiled_model(loss="sparse_categorical_crossentropy", loss_weights=2.0)
    assert _compat.is_compiled_with_loss(model)
    assert not _compat.is_compiled_with_loss(compiled_model())
    name, fresh = _compat.fresh_compile_loss(model, None)
    compiled = getattr(model, name)
    assert type(fresh) is type(compiled)
    assert fresh is not compiled
    assert (compiled._user_loss, compiled._user_loss_weights) == ("sparse_categorical_crossentropy", 2.0)
    assert (fresh._user_loss, fresh._user_loss_weights) == (compiled._user_loss, compiled._user_loss_weights)
    assert fresh.output_names == compiled.output_names
    assert not fresh.built
    x, y = keras.ops.ones((4, 2)), keras.ops.zeros((4,), "int32")
    assert float(fresh(y, model(x))) == pytest.approx(float(model.compute_loss(x, y, model(x))))
    assert _compat.fresh_compile_loss(model, "mse")[1]._user_loss == "mse"


def test_losses_look_for_the_mask_where_it_is_copied_to():
    masked = L.Masking()(keras.ops.ones((1, 2, 3)))
    other = keras.ops.copy(masked)
    _compat.copy_keras_mask(masked, other)
    third = keras.ops.copy(other)  # a layer of Keras passes on what it finds
    _compat.copy_keras_mask(other, third)
    seen = []

    class Masked(L.Layer):
        def call(self, x, mask=None):
            seen.append(mask)
            return x

    Masked()(third)
    assert keras.ops.convert_to_numpy(seen[0]).shape == (1, 2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras keeps logits on tensors of TensorFlow alone")
def test_activations_leave_their_logits_where_losses_look():
    logits = keras.ops.convert_to_tensor([[1.0, 2.0]])
    for activation in (keras.activations.softmax, keras.activations.sigmoid):
        output = activation(logits)
        assert _compat.keras_logits(output) is logits
        copied = keras.ops.copy(output)
        assert _compat.keras_logits(copied) is None
        assert _compat.keras_leaves_logits()
        _compat.set_keras_logits(copied, logits)
        assert _compat.keras_logits(copied) is logits


@pytest.mark.skipif(BACKEND != "tensorflow", reason="names of TensorFlow")
def test_the_memory_optimizer_is_off_within_its_context_alone():
    import tensorflow as tf
    from tensorflow.python.eager import context

    def serialized():
        return context.context().function_call_options.config_proto_serialized

    def optimization():
        config = tf.compat.v1.ConfigProto.FromString(serialized())
        return config.graph_options.rewrite_options.memory_optimization

    before = serialized()
    with _compat.tensorflow_memory_optimizer_off():
        assert optimization() == 1  # NO_MEM_OPT
        assert float(tf.function(lambda x: x + 1)(tf.ones(()))) == 2
    assert serialized() == before


@pytest.mark.skipif(BACKEND != "tensorflow", reason="names of TensorFlow")
def test_layers_convolve_by_what_replaces_it():
    layer, x = L.Conv1D(2, 3), keras.ops.ones((1, 5, 2))
    expected = keras.ops.convert_to_numpy(layer(x))
    with _compat.tensorflow_convolution_replaced(
        lambda convolve: lambda *args, **kwargs: 2 * convolve(*args, **kwargs)
    ):
        np.testing.assert_array_equal(layer(x), 2 * expected)
    np.testing.assert_array_equal(layer(x), expected)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="names of TensorFlow")
def test_the_gradient_of_an_identity_goes_through_what_it_is_given():
    import tensorflow as tf

    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.square(_compat.tensorflow_identity(x, lambda gradient: [10 * gradient]))
    assert float(y) == 9
    assert float(tape.gradient(y, x)) == 60


@pytest.mark.skipif(BACKEND != "tensorflow", reason="names of TensorFlow")
def test_functions_run_eagerly_in_the_thread_that_asks_for_it():
    import tensorflow as tf

    seen = []

    @tf.function
    def function(x):
        seen.append(tf.executing_eagerly())
        return x

    x = tf.constant(3.0)
    with _compat.tensorflow_functions_eager(True):
        function(x)
        other = threading.Thread(target=function, args=(x,))
        other.start()
        other.join()
        with _compat.tensorflow_functions_eager(False):
            function(x)  # as the other thread has traced it
        function(x)
    assert seen == [True, False, True]
    assert tf.config.functions_run_eagerly() is False


@pytest.mark.skipif(BACKEND != "jax", reason="names of JAX")
def test_the_trace_of_a_tensor_has_not_moved():
    import jax

    levels, level_of = [], _compat.jax_trace

    def step(x):
        outside = level_of([x])
        inside, _ = jax.lax.scan(lambda carry, _: (levels.append(level_of(carry)) or carry, None), x, None, length=2)
        levels.extend([outside, level_of(inside), level_of(x + 1)])
        return inside

    jax.jit(step)(np.ones(2))
    in_loop, outside, after, sum_ = levels[-4:]
    assert outside is not None
    assert in_loop is not outside
    assert after is outside
    assert sum_ is outside
    assert level_of([np.ones(2), jax.numpy.ones(2)]) is None


@pytest.mark.skipif(BACKEND != "torch", reason="names of PyTorch")
def test_a_backward_pass_is_known_from_inside():
    import torch

    seen = []
    x = torch.ones((), requires_grad=True)
    y = x * 2
    y.register_hook(lambda gradient: seen.append(_compat.torch_is_in_backward_pass()))
    assert not _compat.torch_is_in_backward_pass()
    y.backward()
    assert seen == [True]
