"""`keras-initkit probe --diagnose`: what it prints, and its exit status."""

import keras
import numpy as np
import pytest
from helpers import command_status

from keras_initkit import cli

L = keras.layers


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A sound model, one with a dead layer, and data of unit variance."""
    path = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    for name, bias in (("sound", 0.0), ("dead", -100.0)):
        keras.Sequential(
            [
                L.Input((32,)),
                L.Dense(64, "relu", kernel_initializer="he_normal", name="first"),
                L.Dense(64, "relu", kernel_initializer="he_normal", bias_initializer=keras.initializers.Constant(bias)),
                L.Dense(3, name="head"),
            ]
        ).save(path / f"{name}.keras")
    np.savez(path / "data.npz", x=np.random.default_rng(0).standard_normal((64, 32)).astype("float32"))
    return path


@pytest.mark.parametrize(
    ("model", "options", "status"),
    [("sound", ["--diagnose"], 0), ("dead", ["--diagnose"], 1), ("dead", [], 0)],
    ids=["sound", "dead", "dead, not asked"],
)
def test_the_exit_status_guards_a_pipeline(place, capsys, model, options, status):
    arguments = ["probe", str(place / f"{model}.keras"), "--data", str(place / "data.npz"), *options]
    assert cli.main(arguments) == status
    printed = capsys.readouterr().out
    assert ("Nothing is wrong." in printed) == (model == "sound")
    assert ("error: dead_units in dense" in printed) == (status == 1)


def test_a_finding_that_is_no_error_leaves_the_status_at_zero(place, capsys, monkeypatch):
    from keras_initkit import diagnosis

    warning = diagnosis.Finding(
        "dead_units", "first", 0, "warning", {"dead": 0.6, "healthy": "0.5"}, 'activation="[leaky_relu]"'
    )
    monkeypatch.setattr(diagnosis._judge, "diagnose_reports", lambda reports, model, task: [warning])
    assert cli.main(["probe", str(place / "sound.keras"), "--diagnose"]) == 0
    assert f"\n{warning}\n" in capsys.readouterr().out  # as it is: square brackets are no markup


def test_bad_input_keeps_its_own_status(place, capsys):
    assert command_status("probe", str(place / "missing.keras"), "--diagnose") == 2
    assert "does not exist" in capsys.readouterr().err


def test_labels_that_do_not_fit_are_a_finding_beside_the_others(tmp_path, capsys):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dense(3, "softmax", name="head")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).standard_normal((16, 4)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(16) % 3 + 1)
    arguments = ["probe", str(tmp_path / "model.keras"), "--data", str(tmp_path / "data.npz")]
    assert cli.main([*arguments, "--diagnose"]) == 1
    printed = capsys.readouterr().out
    assert "error: label_mismatch in head" in printed
    assert "y = y - 1" in printed
    assert "because the labels do not fit" in " ".join(printed.split())
    assert cli.main(arguments) == 2  # without a diagnosis they are an error
    assert "expected classes 0 to 2" in capsys.readouterr().err
