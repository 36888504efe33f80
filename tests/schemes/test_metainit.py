import float64_mlp as oracle
import keras
import numpy as np
import pytest
from helpers import cross_entropy, plan_of

from keras_initkit.schemes.trained._metainit import SMALLEST, gradient_quotient, metainit
from keras_initkit.schemes.trained._scaled_loss import ScaledLoss, loss_of

L = keras.layers
SCALES = np.array([0.7, 1.3, 1.1, 0.6])


def glorot(units, seed, activation=None):
    return L.Dense(units, activation, kernel_initializer=keras.initializers.GlorotNormal(seed=seed))


def he_normal(shape, generator):
    return generator.standard_normal(shape) * np.sqrt(2 / shape[0])


def norms(model):
    return np.array([np.linalg.norm(w) for w in model.get_weights()[::2]])


def test_the_gradient_quotient_and_its_gradient_against_finite_differences():
    x, y = oracle.data(seed=31)
    smallest = min(np.abs(g).min() for g in oracle.loss_and_gradients(oracle.scaled(SCALES), x, y)[1])
    assert smallest > 1e-3  # so the division amplifies float32's rounding, some 1e-7, to 1e-4 at most
    model = oracle.keras_model()
    with loss_of(plan_of(model), None, "metainit"):
        quotient_of = ScaledLoss("metainit", model, model.trainable_variables, 0)
        quotient_of = quotient_of.compiled(gradient_quotient(quotient_of, 1e-5))
        tensors = [keras.ops.convert_to_tensor(x.astype("float32")), keras.ops.convert_to_tensor(y.astype("int32"))]
        value, gradient = quotient_of(SCALES, *tensors, [])
    expected = lambda scales: oracle.gradient_quotient(scales, x, y)  # noqa: E731
    np.testing.assert_allclose(value, expected(SCALES), rtol=1e-4)
    differences = oracle.differences(expected, SCALES, h=1e-5)
    np.testing.assert_allclose(gradient, differences, rtol=1e-3, atol=1e-3 * np.abs(differences).max())


def test_the_quotient_falls_and_every_kernel_keeps_its_direction():
    x, y = oracle.data(64)
    model = oracle.keras_model(factor=3.0)
    plan = plan_of(model, x.astype("float32"), y)
    metainit(plan, steps=80, learning_rate=0.01, momentum=0.5, batch_size=64)
    after = [w / w0 for w, w0 in zip(model.get_weights(), oracle.parameters(), strict=True)]
    scales = np.array([ratio.mean() for ratio in after])
    for ratio in after:
        assert np.ptp(ratio) < 1e-6 * abs(ratio.mean())  # a rounding or two of float32
    np.testing.assert_allclose(scales[1::2], 3, rtol=1e-6)  # biases
    quotients = [oracle.gradient_quotient(s, x, y) for s in (3 * np.ones(4), scales)]
    assert quotients[1] < 0.6 * quotients[0], quotients
    assert [c.skipped for c in plan.changes()] == ["", "metainit sets weights of rank 2 and more"] * 2


def test_the_first_step_moves_each_norm_by_the_learning_rate_against_the_gradient():
    x, y = oracle.data(64)
    model = oracle.keras_model(factor=3.0)
    before = norms(model)
    metainit(plan_of(model, x.astype("float32"), y), steps=2, learning_rate=0.01, batch_size=64)
    slopes = oracle.differences(lambda scales: oracle.gradient_quotient(scales, x, y), 3 * np.ones(4), h=1e-5)[::2]
    # The second step's quotient is the smaller one, so what is kept are the norms after the first.
    np.testing.assert_allclose(norms(model) - before, -0.01 * np.sign(slopes), atol=1e-5)


def test_a_badly_scaled_model_trains_afterwards_and_not_before():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 16)).astype("float32")
    y = (x @ rng.standard_normal((16, 4))).argmax(axis=1)
    losses = {}
    for prepared in (False, True):
        draws = np.random.default_rng(1)
        model = keras.Sequential([keras.Input((16,)), *(L.Dense(32, "relu") for _ in range(4)), L.Dense(4)])
        for layer, factor in zip(model.layers, (4.0, 3.0, 5.0, 3.0, 4.0), strict=True):
            layer.kernel.assign(factor * he_normal(layer.kernel.shape, draws))
        model.compile(keras.optimizers.SGD(0.1), cross_entropy())
        if prepared:
            metainit(plan_of(model), steps=150, epsilon=1e-3, batch_size=64)  # on no data at all
        losses[prepared] = model.fit(x, y, epochs=20, batch_size=32, shuffle=False, verbose=0).history["loss"][-1]
    assert not losses[False] < np.log(4)  # no better than chance, or NaN
    assert losses[True] < 0.75 * np.log(4)


@pytest.mark.parametrize(
    ("loss", "activation"),
    [
        ("sparse_categorical_crossentropy", "softmax"),
        ("categorical_crossentropy", "softmax"),
        ("binary_crossentropy", "sigmoid"),
        ("mse", None),
    ],
)
def test_inputs_and_labels_are_drawn_where_there_are_none(loss, activation):
    model = keras.Sequential([keras.Input((5,)), glorot(6, 0, "tanh"), glorot(3, 1, activation)])
    model.compile("sgd", loss)
    before = norms(model)
    metainit(plan_of(model), steps=40, batch_size=32)
    assert (norms(model) != before).all()


def test_dropout_batch_statistics_and_embeddings_leave_no_trace():
    inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(7, 4, embeddings_initializer=keras.initializers.RandomNormal(stddev=0.5, seed=0))(inputs)
    x = L.Dropout(0.3, seed=1)(L.BatchNormalization()(L.GlobalAveragePooling1D()(x)))
    model = keras.Model(inputs, glorot(3, 2, "softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    trainable = {id(v) for v in model.trainable_variables}
    state = [v for v in [*model.variables, *model.optimizer.variables] if id(v) not in trainable]
    before = [np.array(keras.ops.convert_to_numpy(v.value)) for v in state]
    metainit(plan_of(model), steps=3, batch_size=16)
    for old, variable in zip(before, state, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(variable.value))


def test_norms_stay_positive():
    model = oracle.keras_model()
    before = norms(model)
    x, y = oracle.data()
    metainit(plan_of(model, x.astype("float32"), y), steps=5, learning_rate=100.0)
    assert (norms(model) >= SMALLEST * before * (1 - 1e-6)).all()


def test_errors_say_what_to_do_and_leave_the_weights():
    model = oracle.keras_model()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"momentum: got 1\.5, expected a finite number of at least 0 and below 1"):
        metainit(plan_of(model), momentum=1.5)
    with pytest.raises(ValueError, match="learning_rate: got 0, expected a finite number above 0"):
        metainit(plan_of(model), learning_rate=0)
    x, y = oracle.data()
    x[0, 0] = np.inf
    with pytest.raises(ValueError, match=r"metainit: the loss or its gradient is not finite at step 0\..*'lsuv'"):
        metainit(plan_of(model, x.astype("float32"), y))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    inputs = keras.Input((3,))
    two = keras.Model(inputs, [glorot(2, 0)(inputs), glorot(1, 1)(inputs)])
    two.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"y: got no labels for a model with 2 outputs, expected labels"):
        metainit(plan_of(two))
    with pytest.raises(ValueError, match=r"metainit: the model .* is not compiled with a loss"):
        metainit(plan_of(keras.Sequential([keras.Input((3,)), glorot(2, 0)])))
