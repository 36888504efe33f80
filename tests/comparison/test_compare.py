import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import run_python

import keras_initkit as ik
from keras_initkit.comparison import Comparison

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() == "jax", reason="compiles many models"),
]

SMALL = {"depth": 2, "epochs": 1, "units": 8}


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """A file of 60 examples of 5 features, whose labels are 0, 5 and 9."""
    path = tmp_path_factory.mktemp("data") / "flat.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((60, 5)), y=np.tile([0, 5, 9], 20))
    return str(path)


def plain(result):
    """The runs as text, which tells every last digit and takes NaN for equal."""
    return {(run.initializer, run.seed): repr(run) for run in result.runs}


SUBPROCESS = """
import sys, keras_initkit as ik
names, data = sys.argv[1].split(","), sys.argv[2]
print([repr(run) for run in ik.compare(names, depth=2, epochs=2, units=8, seed=3, data=data).runs])
"""


def test_the_same_seed_gives_the_same_numbers(flat):
    names = ["he_normal", "standard_uniform"]
    settings = {**SMALL, "epochs": 2, "data": flat}
    first = ik.compare(names, seed=3, **settings)
    np.random.default_rng().random()  # and whatever else happens in between
    keras.random.normal((3,))
    assert plain(ik.compare(names, seed=3, **settings)) == plain(first)
    # Nor does it matter which others are compared, in what order, or how many seeds.
    both = plain(ik.compare(names[::-1], seed=3, seeds=2, **settings))
    assert both["he_normal", 3] == plain(first)["he_normal", 3]
    assert both["standard_uniform", 3] == plain(first)["standard_uniform", 3]
    assert both["he_normal", 4].replace("seed=4", "seed=3") != both["he_normal", 3]
    fresh = run_python("-c", SUBPROCESS, ",".join(names), flat)
    assert fresh.stdout.strip() == str(list(plain(first).values()))


@pytest.mark.parametrize("name", ["digits", "gaussian"])
def test_each_run_holds_what_fit_returned(name):
    calls = []
    result = ik.compare(
        ["he_normal"], depth=1, units=4, epochs=2, data=name, progress=lambda title, share: calls.append((title, share))
    )
    (run,) = result.runs
    assert run.test_loss == run.history["val_loss"][-1]
    assert run.test_accuracy == run.history["val_accuracy"][-1]
    assert [len(values) for values in run.history.values()] == [2, 2, 2, 2]
    assert len(run.forward) == len(run.backward) == len(run.histograms) == 1
    assert sum(run.histograms[0][0]) == 512 * 4
    counts, edges = map(np.array, run.histograms[0])
    middles = (edges[1:] + edges[:-1]) / 2
    assert run.activations[0]["mean"] == pytest.approx(counts @ middles / counts.sum(), abs=edges[1] - edges[0])
    assert 0 <= run.activations[0]["zeros"] <= 512 * 4
    assert calls == [("he_normal", 0.5), ("he_normal", 1.0)]
    assert result.settings["data"] == name


def test_instances_classes_and_configurations_draw_as_their_names_do(flat):
    given = ["he_normal", keras.initializers.HeNormal(seed=7), keras.initializers.HeNormal]
    given.append(keras.saving.serialize_keras_object(keras.initializers.HeNormal()))
    settings = {name: np.int64(value) for name, value in SMALL.items()}
    result = ik.compare(given, data=flat, **settings)
    assert type(result) is Comparison
    assert [run.initializer for run in result.runs] == ["he_normal", "HeNormal", "HeNormal 2", "HeNormal 3"]
    for run in result.runs[1:]:
        assert repr(run).replace(run.initializer, "he_normal") == repr(result.runs[0])
    assert {type(result.settings[name]) for name in SMALL} == {int}


def test_a_dead_unit_is_not_a_saturated_one(flat):
    (zeros, ones) = ik.compare(["zeros", "ones"], activation="relu6", depth=1, epochs=1, units=4, data=flat).runs
    assert (zeros.dead, zeros.saturated) == (1.0, 0.0)
    assert (ones.dead, ones.saturated) == (0.0, 0.0)


def test_glorot_and_he_draw_the_same_and_differ_by_their_scale():
    # The first layer's fans are 2048 and 128: 2/2176 against 2/2048, then 1/128 against 2/128.
    result = ik.compare(["he_normal", "glorot_normal"], depth=4, epochs=1, seed=1)
    he, glorot = (np.array(run.forward) for run in result.runs)
    np.testing.assert_allclose(glorot / he, 2048 / 2176 * 0.5 ** np.arange(4), rtol=1e-4)


def test_one_layer_of_one_unit_on_flat_examples(flat, tmp_path):
    result = ik.compare(["zeros", "he_normal", "he_normal"], depth=1, units=1, epochs=1, data=flat)
    assert [run.initializer for run in result.runs] == ["zeros", "he_normal"]  # named twice, trained once
    zeros = result.runs[0]
    assert (zeros.forward, zeros.backward, zeros.dead, zeros.saturated) == ([0.0], [0.0], 1.0, 0.0)
    assert zeros.test_loss == pytest.approx(math.log(3), abs=0.1)  # labels 0, 5, 9 are three classes
    assert len(result.save(tmp_path)) == 5


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_overflow_is_reported_not_raised(flat, tmp_path):
    result = ik.compare(["ones", "he_normal"], activation="exponential", depth=4, epochs=1, units=64, data=flat)
    ones = result.rows()[0]
    assert not math.isfinite(ones["activation_variance_last"])
    assert not math.isfinite(ones["test_loss"])
    assert ones["verdict"] == "signal explodes, does not learn"
    assert "explodes" in str(result)
    result.save(tmp_path)
    assert json.loads((tmp_path / "comparison.json").read_text())["runs"][0]["test_loss"] is None


def test_large_steps_that_stay_finite_explode(flat):
    result = ik.compare(["ones"], activation="linear", depth=6, epochs=1, units=64, data=flat)
    (row,) = result.rows()
    # Behind the first layer all units are equal: each layer multiplies by 64, the variance by 64^2.
    ratio = row["activation_variance_last"] / row["activation_variance_first"]
    assert ratio == pytest.approx(64.0**10, rel=1e-3)
    assert row["verdict"].startswith("signal explodes")


def test_a_constant_signal_has_no_variance(flat):
    # softplus(0) = log 2 in every unit; the sum of 100 of them rounds.
    (row,) = ik.compare(["zeros"], activation="softplus", depth=1, epochs=1, units=100, data=flat).rows()
    assert row["activation_variance_first"] == 0
    assert row["verdict"].startswith("signal vanishes")


def test_saturated_units_are_counted(flat):
    (row,) = ik.compare(["ones"], activation="tanh", depth=2, epochs=1, units=64, data=flat).rows()
    assert row["saturated"] > 0
    assert row["dead"] == 0


IMAGES = Path(__file__).parents[3] / "shared" / "data" / "mnist_t10k.npz"


@pytest.mark.skipif(not IMAGES.exists(), reason="the MNIST test images are not beside the checkout")
def test_real_images_from_a_file(tmp_path):
    with np.load(IMAGES) as images:
        np.savez(tmp_path / "mnist.npz", x=images["x"][:1000], y=images["y"][:1000])
    result = ik.compare(["he_normal", "zeros"], depth=2, epochs=2, data=str(tmp_path / "mnist.npz"))
    he, zeros = result.rows()
    assert he["verdict"] == "signal healthy, learns"
    assert he["test_accuracy"] > 0.6
    assert zeros["verdict"] == "signal vanishes, does not learn"
    assert zeros["test_accuracy"] < 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "depth: got 0, expected a positive integer"),
        ({"epochs": 1.0}, "epochs: got 1.0, expected"),
        ({"seeds": True}, "seeds: got True, expected"),
        ({"units": -1}, "units: got -1, expected"),
        ({"batch_size": "32"}, "batch_size: got '32', expected"),
        ({"seed": -1}, r"seed: got -1, expected an integer from 0 to 2147483647"),
        ({"seed": 2**31}, "seed: got 2147483648, expected"),
        ({"learning_rate": 0.0}, "learning_rate: got 0.0, expected a finite number"),
        ({"learning_rate": math.nan}, "learning_rate: got nan, expected"),
        ({"initializers": "he_normal"}, r"initializers: got 'he_normal', expected a list of initializers such as"),
        ({"initializers": []}, r"initializers: got \[\], expected a list"),
        ({"initializers": ["dirac"]}, r"got 'dirac', which cannot draw the kernel of a Dense layer "),
        ({"initializers": ["he_normal", "gatewise_orthogonal"]}, r"got 'gatewise_orthogonal', which cannot draw .*"),
        ({"initializers": [3]}, "initializers: got 3, expected an initializer"),
        ({"activation": None}, "activation: got None, expected the name"),
        ({"activation": len}, "activation: got <built-in function len>, expected the name"),
        ({"data": np.ones((3, 4))}, r"data: got array\(.*, expected the name of a data set"),
        ({"log_dir": 3}, "log_dir: got 3, expected a path, or None"),
        ({"progress": 3}, "progress: got 3, expected a function"),
    ],
)
def test_bad_arguments_are_refused_before_training(flat, tmp_path, arguments, message, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", None)
    names = arguments.pop("initializers", ["he_normal"])
    with pytest.raises(ValueError, match=message):
        ik.compare(names, **{"data": flat, "log_dir": tmp_path / "logs", **arguments})
    assert not (tmp_path / "logs").exists()
