"""Takes private names away, and uses the package without them."""

import functools
import importlib
import sys
import types
import warnings

import keras
import numpy as np
import pytest
from helpers import CROSS_ENTROPY, mlp
from keras import layers as L

from keras_initkit import _compat, probe
from keras_initkit._compat import _keras_training, _moved
from keras_initkit.callbacks import LayerStatsCallback

X = np.random.default_rng(0).standard_normal((16, 6)).astype("float32")
Y = np.arange(16) % 3


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(_moved, "_WARNED", set())
    _keras_training.keras_leaves_logits.cache_clear()
    yield
    _keras_training.keras_leaves_logits.cache_clear()


@pytest.fixture
def take_away(monkeypatch):
    """Takes a name away from those who import it from now on; the frameworks go on with what they have imported."""

    def take_away(module, name):
        real = importlib.import_module(module)
        without = types.ModuleType(module)
        vars(without).update({each: value for each, value in vars(real).items() if each != name})
        assert hasattr(real, name)
        monkeypatch.setitem(sys.modules, module, without)
        parent, _, leaf = module.rpartition(".")
        monkeypatch.setattr(sys.modules[parent], leaf, without)

    return take_away


@pytest.fixture
def hide(monkeypatch):
    """Hides an attribute of the instances of a class from `_compat`; the frameworks find it as before."""

    def hide(owner, name):
        real = owner.__getattribute__

        def find(self, attribute):
            if attribute == name and sys._getframe(1).f_globals["__name__"].startswith(_compat.__name__):
                raise AttributeError(name)
            return real(self, attribute)

        monkeypatch.setattr(owner, "__getattribute__", find)

    return hide


def make_model(eager):
    keras.utils.set_random_seed(1)
    inner = L.Dropout(0.1, name="drop"), L.Dense(4, name="b"), L.ReLU(name="r")
    model = mlp(*inner, kind=lambda layers: keras.Sequential(layers, name="model"))
    model.compile("adam", CROSS_ENTROPY, run_eagerly=eager)
    return model


def fit(model, *callbacks):
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model.get_weights()


@functools.cache
def plain_weights(eager):
    """Returns the weights after a training without callbacks."""
    return fit(make_model(eager))


def use(eager=False):
    """Trains as without a callback; returns the reports of a probe and of each step, and what was said of names."""
    model = make_model(eager)
    callback = LayerStatsCallback(None, "batch", on_finding="ignore")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = probe(model, X, Y)
        weights = fit(model, callback)
    np.testing.assert_equal(weights, plain_weights(eager))
    said = [str(each.message) for each in caught if "Please report it" in str(each.message)]
    others = [str(each.message) for each in caught if "LayerStatsCallback" in str(each.message)]
    assert others == []
    return report.to_dict(), [each.to_dict() for each in callback.reports], said


@pytest.fixture(name="use")
def use_fixture():
    return use


@pytest.fixture(scope="session")
def plain():
    """The reports that `use` returns while all names are there."""
    *found, said = use()
    assert said == []
    return found


@pytest.fixture
def check_use(plain):
    """Uses the package without a name: one warning says what is lost, and all else is as it is with the name."""

    def check_use(name, lost):
        *found, said = use()
        framework = name.partition(".")[0]
        title = {"keras": "Keras", "tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}[framework]
        (message,) = said
        assert message.startswith(f"{title} {sys.modules[framework].__version__} no longer has {name}; ")
        assert message.endswith(". Please report it.")
        assert lost in message
        assert found == plain

    return check_use
