"""The commands on saved models, from the command line to files, statuses and JSON. It runs on every backend."""

import importlib.metadata
import io
import json
import os
import re
import subprocess

import keras
import numpy as np
import pytest
from helpers import Terminal, command_status, python_command, python_environment, run_python

import keras_initkit as ik
from keras_initkit.initializers import catalogue

L = keras.layers
PLUGIN = bool(importlib.metadata.entry_points(group="tensorboard_plugins", name="keras_initkit"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A healthy model, one with a layer of zeros, and data."""
    path = tmp_path_factory.mktemp("place, [red]")
    keras.utils.set_random_seed(0)
    for name, initializer in (("good", "he_normal"), ("zeros", "zeros")):
        model = keras.Sequential(
            [
                L.Input((32,)),
                L.Dense(64, "relu", kernel_initializer="he_normal", name="first"),
                L.Dense(64, "relu", kernel_initializer=initializer, name="second"),
                L.Dense(3, name="head"),
            ],
            name=name,
        )
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.save(path / f"{name}.keras")
    x = np.random.default_rng(0).standard_normal((80, 32)).astype("float32")
    np.savez(path / "data.npz", x=x, y=np.random.default_rng(1).integers(0, 3, 80))
    np.save(path / "x.npy", x)
    return path


@pytest.fixture
def ran(place, monkeypatch, capsys):
    """Runs the command in the place; returns its exit status, output and errors."""
    monkeypatch.chdir(place)

    def run(*arguments):
        status = command_status(*arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def command(place, *arguments, status=0, **environment):
    """Runs the command in a process of its own, where TensorFlow is free to say what it likes."""
    code = "import os; os.environ.pop('TF_CPP_MIN_LOG_LEVEL', None); import keras_initkit_cli as c; exit(c.main())"
    return run_python("-c", code, *arguments, status=status, cwd=place, environment=environment)


def read(path, x):
    return np.asarray(keras.ops.convert_to_numpy(keras.saving.load_model(path)(x)))


# diagnose


def test_diagnose_prints_the_first_cause_and_ends_with_one_at_an_error(place):
    finished = command(place, "diagnose", "zeros.keras", "--data", "data.npz", status=1)
    assert finished.stderr == ""
    assert finished.stdout.startswith("error: symmetric_units in second at step 0 (confidence 1.00)\n")
    model = keras.saving.load_model(place / "zeros.keras")
    data = np.load(place / "data.npz")
    assert finished.stdout.rstrip() == str(ik.diagnose(model, data["x"][:64], data["y"][:64]))


def test_diagnose_of_a_healthy_model_as_text_and_as_json(ran):
    assert ran("diagnose", "good.keras", "--data", "data.npz")[:2] == (0, "Nothing is wrong.\n")
    status, out, _ = ran("diagnose", "good.keras", "--json")
    found = json.loads(out)
    assert (status, found["model"], found["findings"]) == (0, "good", [])
    assert any("Inputs were drawn" in note and "(64, 32)" in note for note in found["notes"])


def test_findings_as_json(ran):
    status, out, error = ran("diagnose", "zeros.keras", "--data", "data.npz", "--json")
    assert (status, error) == (1, "")
    first = json.loads(out)["findings"][0]
    assert (first["kind"], first["layer"], first["severity"]) == ("symmetric_units", "second", "error")


# repair


def test_repair_writes_a_model_that_is_diagnosed_as_healthy(place, tmp_path):
    fixed = str(tmp_path / "fixed.keras")
    finished = command(place, "repair", "zeros.keras", "--data", "data.npz", "-o", fixed)
    assert finished.stderr == ""
    lines = finished.stdout.splitlines()
    assert lines[0].startswith("- second/kernel re-initialized for symmetric_units: ")
    assert lines[-3:] == ["Diagnosed again:", "Nothing is wrong.", fixed]
    assert os.listdir(tmp_path) == ["fixed.keras"]
    x = np.load(place / "x.npy")
    before, after = (keras.saving.load_model(path) for path in (place / "zeros.keras", fixed))
    for layer in ("first", "head"):  # healthy layers keep their weights
        for old, new in zip(before.get_layer(layer).get_weights(), after.get_layer(layer).get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    assert ik.diagnose(after, x) == []
    assert after.loss is not None  # compiled as before


def test_repair_as_json_and_the_same_seed_gives_the_same_weights(ran, tmp_path, place):
    paths = [str(tmp_path / f"{number}.keras") for number in range(3)]
    for path, seed in zip(paths, "771", strict=True):
        status, out, _ = ran("repair", "zeros.keras", "-o", path, "--seed", seed, "--json")
        result = json.loads(out)
        assert (status, result["output"], result["after"]) == (0, path, [])
        assert result["before"][0]["kind"] == "symmetric_units"
        assert len(result["done"]) >= 1
    x = np.load(place / "x.npy")
    first, again, other = (read(path, x) for path in paths)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


# initialize


def test_initialize_sets_the_layers_that_are_asked_for(place, tmp_path):
    written = str(tmp_path / "new.keras")
    arguments = ["zeros.keras", "he_uniform", "--layers", "second, head", "-o", written, "--seed", "5"]
    finished = command(place, "initialize", *arguments, COLUMNS="80")
    assert finished.stderr == ""
    assert finished.stdout.startswith("zeros: 'he_uniform' set 2 of 3 kernels (seed 5)")
    assert finished.stdout.splitlines()[-1] == written
    model = keras.saving.load_model(place / "zeros.keras")
    ik.initialize(model, "he_uniform", layers=["second", "head"], seed=5)
    x = np.load(place / "x.npy")
    expected = np.asarray(keras.ops.convert_to_numpy(model(x)))
    np.testing.assert_allclose(read(written, x), expected, rtol=1e-6)


def test_initialize_on_data_writes_over_its_input_if_asked(ran, tmp_path, place):
    model = str(tmp_path / "model.keras")
    keras.saving.load_model(place / "zeros.keras").save(model)
    status, out, _ = ran("initialize", model, "lsuv", "--data", "x.npy", "-o", model, "--overwrite", "--json")
    result = json.loads(out)
    assert (status, result["scheme"], result["output"]) == (0, "lsuv", model)
    assert os.listdir(tmp_path) == ["model.keras"]
    assert read(model, np.load("x.npy")).var() == pytest.approx(1, abs=0.05)  # on all of the file's 80 examples


@pytest.mark.parametrize("terminal", [True, False])
def test_a_scheme_that_trains_shows_its_progress_on_a_terminal(ran, tmp_path, monkeypatch, terminal):
    stderr = Terminal(monkeypatch) if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    arguments = ["good.keras", "gradinit", "--data", "data.npz", "--option", "steps=2", "--option", "optimizer=adam"]
    status, out, _ = ran("initialize", *arguments, "-o", str(tmp_path / "out.keras"), "--json")
    assert status == 0
    assert json.loads(out)["scheme"] == "gradinit"
    assert ("gradinit, gradient norm" in stderr.getvalue()) == terminal
    assert terminal or stderr.getvalue() == ""


REFUSED = {
    "output exists": (
        ["initialize", "good.keras", "auto", "-o", "good.keras"],
        "--output: 'good.keras' exists; give another path, or --overwrite",
    ),
    "no directory": (["repair", "good.keras", "-o", "none/a.keras"], "--output: 'none/a.keras' cannot be written"),
    "another ending": (["repair", "good.keras", "-o", "a.h5"], "got 'a.h5', expected a path that ends with .keras"),
    "a scheme": (["initialize", "good.keras", "lsvu", "-o", "a.keras"], "Did you mean 'lsuv'"),
    "a layer": (["initialize", "good.keras", "auto", "--layers", "scond", "-o", "a.keras"], "'scond'"),
    "no pair": (["initialize", "good.keras", "auto", "--option", "steps", "-o", "a.keras"], "expected NAME=VALUE"),
    "an option": (
        ["initialize", "good.keras", "gradinit", "--option", "setps=3", "-o", "a.keras"],
        "setps: 'gradinit' has no such option.*Did you mean 'steps'",
    ),
    "an argument": (
        ["initialize", "good.keras", "auto", "--option", "seed=3", "-o", "a.keras"],
        "--option: got 'seed'",
    ),
    "no data": (["verify", "good.keras"], "the following arguments are required: --data"),
    "an initializer": (["list", "icnrr"], "got 'icnrr', expected the name of an initializer. Did you mean 'icnr'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_one_line(ran, case):
    arguments, message = REFUSED[case]
    before = sorted(os.listdir())
    status, out, error = ran(*arguments)
    assert (status, out) == (2, "")
    (line,) = error.splitlines()
    assert line.startswith(f"keras-initkit {arguments[0]}: error: ")
    assert re.search(message, line)
    assert sorted(os.listdir()) == before


# verify, list, doctor


def test_verify_as_json(place):
    finished = command(place, "verify", "good.keras", "--data", "data.npz", "--batch", "8", "--json")
    assert finished.stderr == ""
    result = json.loads(finished.stdout)
    assert (result["model"], result["equal"], result["measured"], result["differences"]) == ("good", True, True, [])


def test_list_describes_one_initializer_under_any_of_its_names(ran):
    for name in ("ActivationScaling", "activation_scaling", "keras_initkit>ActivationScaling"):
        status, out, _ = ran("list", name)
        assert status == 0
        assert "keras_initkit.initializers.ActivationScaling(activation=" in " ".join(out.split())
        assert "https://arxiv.org/abs/1502.01852" in out
        assert '"keras_initkit>ActivationScaling"' in out
    assert '"HeNormal"' in ran("list", "he_normal")[1]


def test_list_as_json(ran):
    listed = json.loads(ran("list", "--json")[1])["initializers"]
    assert [entry["name"] for entry in listed] == [entry.name for entry in catalogue()]
    assert json.loads(ran("list", "icnr", "--json")[1])["formula"] == "K = [K_0, ..., K_0], scale^d copies"


@pytest.mark.skipif(os.name == "nt", reason="Windows has other pipes")
def test_a_reader_that_has_gone_ends_the_command_without_a_word(place):
    run = subprocess.Popen(
        python_command("-m", "keras_initkit_cli", "list"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=python_environment(),
    )
    run.stdout.close()
    error = run.stderr.read()
    run.stderr.close()
    assert (run.wait(), error) == (141, b"")


def test_doctor_tries_what_the_package_does(place):
    finished = command(place, "doctor", status=int(not PLUGIN), PYTHONIOENCODING="utf-8")
    assert finished.stderr == ""
    marks = {line[2:18].strip(): line[0] for line in finished.stdout.splitlines()[:-2]}
    works = ["Python", "keras-initkit", "Keras", keras.backend.backend(), "devices"]
    for name in [*works, "a draw", "a probe", "a measured step"]:
        assert marks[name] == "✓", finished.stdout
    assert marks["TensorBoard"] == "✗✓"[PLUGIN]
    assert {marks[name] for name in ("pandas", "fsspec", "mlflow", "wandb", "keras_hub")} == {"-"}
    assert finished.stdout.splitlines()[-1] in ("Everything works.", "1 of 16 does not work.")


@pytest.mark.parametrize("registered", [True, False])
def test_doctor_knows_whether_tensorboards_plugin_is_there(ran, monkeypatch, registered):
    entry = importlib.metadata.EntryPoint("keras_initkit", "json:dumps", "tensorboard_plugins")
    found = importlib.metadata.EntryPoints([entry] if registered else [])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **selected: found)
    status, out, _ = ran("doctor", "--json")
    result = json.loads(out)
    assert (status, result["works"]) == (int(not registered), registered)
    (check,) = [check for check in result["checks"] if check["name"] == "TensorBoard"]
    assert check["works"] == registered
    assert ("install keras-initkit again" in check["found"]) != registered


def test_doctor_says_what_does_not_work(ran, monkeypatch):
    monkeypatch.setattr("keras_initkit.capture.probe", lambda *data: 1 / 0)
    status, out, _ = ran("doctor", "--json")
    broken = {check["name"]: check["found"] for check in json.loads(out)["checks"] if check["works"] is False}
    assert status == 1
    assert broken["a probe"] == "division by zero"
    assert set(broken) <= {"a probe", "TensorBoard"}


def test_doctor_runs_where_keras_does_not_start(place):
    finished = command(place, "doctor", status=1, KERAS_BACKEND="foo", PYTHONIOENCODING="ascii")
    assert "NO backend foo" in finished.stdout
    assert "Expected one of tensorflow, jax, torch." in finished.stdout
    assert finished.stdout.splitlines()[-1] == "1 of 12 does not work."


def test_an_interrupt_has_its_own_status(ran, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_initkit.cli._model_files.load_model", interrupted)
    assert ran("diagnose", "good.keras") == (130, "", "")


def test_reproduce_as_json(tmp_path, ran):
    out = str(tmp_path / "out")
    status, printed, _ = ran("reproduce", "cost_surfaces", "--out", out, "--json")
    result = json.loads(printed)
    assert status == 0
    assert list(result["experiments"]) == ["cost_surfaces"]
    with open(os.path.join(out, "cost_surfaces.json"), encoding="utf-8") as file:
        assert result["experiments"]["cost_surfaces"]["numbers"] == json.load(file)["numbers"]
    assert sorted(result["experiments"]["cost_surfaces"]["files"]) == sorted(
        os.path.join(out, name) for name in os.listdir(out)
    )
