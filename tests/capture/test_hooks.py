"""Wrappers of methods go in any order, and take nothing away that is not theirs."""

import itertools

import keras
import numpy as np
import pytest

from keras_initkit.capture._hooks import replaced, wrap_activation, wrap_call, wrap_optimizer


class Owner:
    name = "of the class"


ORDERS = list(itertools.permutations(range(3)))


@pytest.mark.parametrize("before", [None, "own"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_nested_replacements_end_in_any_order(order, before):
    owner = Owner()
    if before:
        owner.name = before
    contexts = [replaced(owner, "name", value) for value in "abc"]
    for context in contexts:
        context.__enter__()
    left = [0, 1, 2]
    for index in order:
        contexts[index].__exit__(None, None, None)
        left.remove(index)
        assert owner.name == ("abc"[left[-1]] if left else before or "of the class")
    assert vars(owner) == ({"name": "own"} if before else {})


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_equal_values_are_not_taken_for_one_another(order):
    owner = Owner()
    contexts = [replaced(owner, "name", value) for value in (True, True, False)]
    for context in contexts:
        context.__enter__()
    left = [True, True, False]
    for index in order:
        contexts[index].__exit__(None, None, None)
        left[index] = None
        rest = [value for value in left if value is not None]
        assert owner.name == (rest[-1] if rest else "of the class")
    assert not vars(owner)


def test_a_value_that_somebody_else_has_put_there_stays():
    owner = Owner()
    with replaced(owner, "name", "ours"):
        owner.name = "theirs"
    assert owner.name == "theirs"
    with replaced(owner, "name", "ours"):
        del owner.name
    assert owner.name == "of the class"
    first, second = replaced(owner, "name", "first"), replaced(owner, "name", "second")
    first.__enter__()
    owner.name = "theirs"
    second.__enter__()
    first.__exit__(None, None, None)
    assert owner.name == "second"
    second.__exit__(None, None, None)
    assert owner.name == "theirs"


@pytest.mark.parametrize("same_owner", [True, False])
def test_one_value_in_two_places_is_not_taken_for_one(same_owner):
    """A function may be put over two attributes, or the same attribute of two owners; each is restored alone."""
    owner, other = Owner(), Owner()
    second = (owner, "title") if same_owner else (other, "name")
    value = object()
    first, beside, above = replaced(owner, "name", value), replaced(*second, value), replaced(*second, "above")
    for context in (first, beside, above):
        context.__enter__()
    first.__exit__(None, None, None)
    assert owner.name == "of the class"
    assert getattr(*second) == "above"
    above.__exit__(None, None, None)
    assert getattr(*second) is value
    beside.__exit__(None, None, None)
    assert not vars(owner)
    assert not vars(other)


def test_an_exception_ends_a_replacement():
    owner = Owner()
    with pytest.raises(RuntimeError, match="on purpose"), replaced(owner, "name", "ours"):
        raise RuntimeError("on purpose")
    assert not vars(owner)


def test_wrappers_are_given_the_method_and_its_arguments():
    layer = keras.layers.Dense(2, "relu", kernel_initializer="ones")
    x, seen = np.array([[1.0, -3.0]], "float32"), []

    def call(original, inputs, **options):
        seen.append(original.__name__)
        return original(inputs, **options) + 1

    def activation(original, z):
        seen.append(original)
        return original(z + 10)

    with wrap_call(layer, call), wrap_activation(layer, activation):
        assert keras.ops.convert_to_numpy(layer(x)).tolist() == [[9.0, 9.0]]
        assert layer.call.__wrapped__.__func__ is keras.layers.Dense.call
    assert seen == ["call", keras.activations.relu]
    assert keras.ops.convert_to_numpy(layer(x)).tolist() == [[0.0, 0.0]]
    assert not {"call"} & set(vars(layer))


def test_the_optimizers_method_that_takes_gradients_is_wrapped():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    given = []

    def update(original, *args):
        given.append(len(args))
        return original(*args)

    with wrap_optimizer(model.optimizer, update):
        model.train_on_batch(np.ones((4, 2)), np.ones((4, 1)))
    assert given[0] == 3 if keras.backend.backend() == "jax" else given[0] in (1, 2)
    assert not {"apply", "stateless_apply"} & set(vars(model.optimizer))
