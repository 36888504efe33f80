import float64_mlp as oracle
import keras
import numpy as np
import pytest
from helpers import cross_entropy, plan_of, state_of

from keras_initkit.schemes.trained._gradinit import LOWER_BOUND, gradinit, objectives
from keras_initkit.schemes.trained._scaled_loss import ScaledLoss, loss_of
from keras_initkit.structure import weighted_layers

L = keras.layers
SCALES = np.array([0.7, 1.3, 1.1, 0.6])


def teacher(examples=256, features=16, classes=4):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((examples, features)).astype("float32")
    return x, (x @ rng.standard_normal((features, classes))).argmax(axis=1)


def badly_scaled(factors=(4.0, 0.5, 4.0, 3.0, 4.0)):
    """A relu MLP whose layers are each wrong by a factor; it overflows in training."""
    model = keras.Sequential([keras.Input((16,))])
    for _ in factors[1:]:
        model.add(L.Dense(32, "relu"))
    model.add(L.Dense(4))
    draws = np.random.default_rng(1)
    for layer, factor in zip(model.layers, factors, strict=True):
        n_in = layer.kernel.shape[0]
        layer.kernel.assign(factor * draws.standard_normal(layer.kernel.shape) * np.sqrt(2 / n_in))
    model.compile(keras.optimizers.SGD(0.1), cross_entropy())
    return model


def mixed_model(seed=3):
    """With state of every kind: batch-norm averages, dropout's generator, biases of zero."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(4, 3, kernel_initializer=keras.initializers.HeNormal(seed=0)),
            L.BatchNormalization(),
            L.ReLU(),
            L.MaxPooling2D(),
            L.Dropout(0.5, seed=seed),
            L.Flatten(),
            L.Dense(3, kernel_initializer=keras.initializers.HeNormal(seed=1)),
        ]
    )
    model.compile("adam", cross_entropy())
    model.optimizer.build(model.trainable_variables)
    return model


def images(examples=32):
    rng = np.random.default_rng(0)
    return rng.standard_normal((examples, 8, 8, 2)).astype("float32"), rng.integers(0, 3, examples)


def tensors(*arrays):
    return [keras.ops.convert_to_tensor(np.asarray(a, "float32" if a.dtype.kind == "f" else "int32")) for a in arrays]


@pytest.mark.parametrize("adam", [False, True])
def test_gradient_norm_and_its_gradient_against_finite_differences(adam):
    x, y = oracle.data()
    model = oracle.keras_model()
    with loss_of(plan_of(model), None, "gradinit"):
        norm_of, _ = objectives(ScaledLoss("gradinit", model, model.trainable_variables, 0), 0.5, adam)
        value, gradient = norm_of(SCALES, *tensors(x, y), [])
    expected = lambda scales: oracle.gradient_norm(scales, x, y, 1 if adam else 2)  # noqa: E731
    # Rounding of float32, 6e-8, through two derivatives of some tens of terms.
    np.testing.assert_allclose(value, expected(SCALES), rtol=1e-5)
    np.testing.assert_allclose(gradient, oracle.differences(expected, SCALES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adam", [False, True])
def test_loss_after_a_step_and_its_gradient_against_finite_differences(adam):
    (x, y), (next_x, next_y), eta = oracle.data(), oracle.data(seed=2), 0.5
    model = oracle.keras_model()
    with loss_of(plan_of(model), None, "gradinit"):
        _, loss_after = objectives(ScaledLoss("gradinit", model, model.trainable_variables, 0), eta, adam)
        value, gradient = loss_after(SCALES, *tensors(x, y, next_x, next_y), [])
    expected = lambda scales: oracle.loss_after_step(scales, x, y, next_x, next_y, eta, adam)  # noqa: E731
    np.testing.assert_allclose(value, expected(SCALES), rtol=1e-5)
    np.testing.assert_allclose(gradient, oracle.differences(expected, SCALES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_loss_after_a_step_falls_and_the_gradient_is_bounded(optimizer):
    x, y = oracle.data(64)
    adam, eta, gamma = optimizer == "adam", 0.05, 0.4 if optimizer == "sgd" else 1.5
    # 5 times the weights: the gradient is beyond the bound at first, so both kinds of steps are taken.
    model = oracle.keras_model()
    model.set_weights([5 * w for w in oracle.parameters()])
    before = 5 * np.ones(4)
    plan = plan_of(model, x, y)
    gradinit(plan, steps=150, learning_rate=0.03, gamma=gamma, eta=eta, optimizer=optimizer, batch_size=64)
    after = [float(np.mean(w / w0)) for w, w0 in zip(model.get_weights(), oracle.parameters(), strict=True)]
    order = 1 if adam else 2
    assert oracle.gradient_norm(before, x, y, order) > gamma
    assert oracle.gradient_norm(np.array(after), x, y, order) < 1.1 * gamma  # around the bound, both kinds in turn
    loss = [oracle.loss_after_step(s, x, y, x, y, eta, adam) for s in (before, np.array(after))]
    assert loss[1] < 0.6 * loss[0]


def test_a_badly_scaled_model_trains_afterwards_and_not_before():
    x, y = teacher()
    losses = {}
    for prepared in (False, True):
        model = badly_scaled()
        if prepared:
            gradinit(plan_of(model, x, y), steps=100, learning_rate=0.05)
        losses[prepared] = model.fit(x, y, epochs=15, batch_size=32, shuffle=False, verbose=0).history["loss"][-1]
    assert not losses[False] < np.log(4)  # no better than chance, or NaN
    assert losses[True] < 0.5 * np.log(4)


def test_each_weight_gets_one_scale_and_what_is_left_is_said():
    x, y = images()
    model = mixed_model()
    before = model.get_weights()
    plan = plan_of(model, x, y)
    gradinit(plan, steps=5, learning_rate=0.1)
    changes = plan.changes()
    for old, new, change in zip(before, model.get_weights(), changes, strict=True):
        if change.skipped:
            np.testing.assert_array_equal(new, old)
        else:
            ratio = new / old
            assert np.ptp(ratio) < 1e-6 * abs(ratio.mean())  # a rounding or two of float32
            assert abs(ratio.mean() - 1) > 1e-3
    skipped = {change.name: change.skipped for change in changes if change.skipped}
    assert skipped["bias"] == skipped["beta"] == "it is zero, whatever its scale"
    assert skipped["moving_variance"].startswith("it is not trainable")
    assert [change.name for change in changes if not change.skipped] == ["kernel", "gamma", "kernel"]


def test_nothing_but_the_weights_changes_and_a_seed_repeats():
    x, y = images()
    results = []
    for seed in (0, 0, 1):
        model = mixed_model()
        before = state_of(model)
        gradinit(plan_of(model, x, y, seed), steps=3, batch_size=16)
        after = state_of(model)
        kept = {id(w): i for i, w in enumerate(model.variables)}
        free = {kept[id(w)] for w in model.trainable_variables}
        for index, ((_, old), (_, new)) in enumerate(zip(before, after, strict=True)):
            if index not in free:
                np.testing.assert_array_equal(old, new)
        results.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 1e-5


def test_dropout_draws_the_same_mask_within_a_step_and_others_in_the_next():
    x, y = images()
    model = mixed_model()
    with loss_of(plan_of(model), None, "gradinit"):
        loss = ScaledLoss("gradinit", model, model.trainable_variables, 0)
        values, data = loss.values(np.ones(6, "float32")), tensors(x, y)
        first, second = loss.draw_seeds(), loss.draw_seeds()
        assert len(first) == 1  # the name by which the generator's state is found
        a, b, c = (float(loss(values, *data, seeds)) for seeds in (first, first, second))
    assert a == b != c


def test_layers_that_are_left_out_stay_and_scales_are_bounded():
    x, y = teacher()
    model = badly_scaled()
    before = model.get_weights()
    paths = list(weighted_layers(model))
    gradinit(plan_of(model, x, y, layers=paths[2:3]), steps=40, learning_rate=1.0)
    for index, (old, new) in enumerate(zip(before, model.get_weights(), strict=True)):
        if index == 4:
            assert (new / old).mean() >= LOWER_BOUND * (1 - 1e-6)
        else:
            np.testing.assert_array_equal(old, new)


def test_several_outputs_and_a_loss_given():
    inputs = keras.Input((6,))
    hidden = L.Dense(5, "tanh", kernel_initializer=keras.initializers.GlorotNormal(seed=0))(inputs)
    heads = [L.Dense(n, kernel_initializer=keras.initializers.GlorotNormal(seed=n))(hidden) for n in (1, 2)]
    model = keras.Model(inputs, heads)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 6)).astype("float32"), [rng.standard_normal((16, n)) for n in (1, 2)]
    before = model.get_weights()
    gradinit(plan_of(model, x, [each.astype("float32") for each in y]), steps=2, loss=["mse", "mae"])
    assert all(np.abs(new - old).max() > 0 for old, new in zip(before[::2], model.get_weights()[::2], strict=True))
    assert not model.compiled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lion"}, "optimizer: got 'lion', expected one of 'sgd', 'adam'"),
        ({"steps": 0}, "steps: got 0, expected a positive integer"),
        ({"gamma": -1.0}, r"gamma: got -1\.0, expected a positive number"),
        ({"batch_size": 0}, "batch_size: got 0, expected a positive integer"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        gradinit(plan_of(oracle.keras_model(), *oracle.data()), **options)


def test_no_labels_no_loss_and_nothing_to_scale():
    x, y = oracle.data()
    with pytest.raises(ValueError, match="gradinit: got no labels, expected x and y"):
        gradinit(plan_of(oracle.keras_model(), x))
    model = keras.Sequential([keras.Input((3,)), L.Dense(5)])
    with pytest.raises(ValueError, match=r"not compiled with a loss.*Give loss="):
        gradinit(plan_of(model, x, y))
    model.set_weights([np.zeros((3, 5)), np.zeros(5)])
    with pytest.raises(ValueError, match="no trainable weight of the chosen layers differs from zero"):
        gradinit(plan_of(model, x, y))


def test_numbers_that_are_not_finite_leave_the_weights():
    x, y = oracle.data()
    x[3, 1] = np.nan
    model = oracle.keras_model()
    with pytest.raises(
        ValueError, match=r"gradinit: the loss or its gradient is not finite at step 0\..*NaN in the data"
    ):
        gradinit(plan_of(model, x.astype("float32"), y))
    for expected, weight in zip(oracle.parameters(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(expected.astype("float32"), weight)


class OnceDifferentiable(L.Layer):
    """An operation of the framework itself that has a first derivative at most."""

    def call(self, x):
        backend = keras.backend.backend()
        if backend == "tensorflow":
            import tensorflow as tf

            return tf.nn.local_response_normalization(x[:, None, None, :])[:, 0, 0, :]
        if backend == "jax":
            import jax

            @jax.custom_vjp
            def identity(x):
                return x

            identity.defvjp(
                lambda x: (x, None),
                lambda _, g: (jax.pure_callback(lambda a: a, jax.ShapeDtypeStruct(g.shape, g.dtype), g),),
            )
            return identity(x)
        import torch

        return x + torch.cdist(x, x, p=3.0).mean(1, keepdim=True)

    def compute_output_shape(self, shape):
        return shape


def test_an_operation_without_second_derivatives_is_an_error_that_says_what_to_do():
    x, y = oracle.data()
    model = keras.Sequential([keras.Input((3,)), L.Dense(4), OnceDifferentiable(), L.Dense(5)])
    model.compile("sgd", cross_entropy())
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"no derivative of the order that this scheme needs.*'lsuv'"):
        gradinit(plan_of(model, x.astype("float32"), y))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
