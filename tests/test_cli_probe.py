"""`keras-initkit probe`, from the command line to its files. It runs on every backend."""

import csv
import json
import os
import re
import zipfile

import keras
import matplotlib.image
import numpy as np
import pytest
from helpers import command_status, run_python

from keras_initkit import cli
from keras_initkit.initializers import ActivationScaling
from keras_initkit.signal import SignalReport

L = keras.layers


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Saved models and data."""
    path = tmp_path_factory.mktemp("place, [red]")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [L.Input((6,)), L.Dense(5, "tanh", kernel_initializer=ActivationScaling("tanh"), name="hidden"), L.Dense(3)],
        name="small",
    )
    model.save(path / "plain.keras")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(path / "compiled.keras")
    a, b = L.Input((4,), name="a"), L.Input((3,), name="b")
    keras.Model([a, b], L.Dense(2, name="joined")(L.Concatenate()([a, b]))).save(path / "two.keras")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 6)) + 5, np.arange(20) % 3
    np.savez(path / "xy.npz", x=x, y=y)
    np.savez(path / "x.npz", x=x)
    np.savez(path / "two.npz", b=x[:, :3], a=x[:, :4])
    np.savez(path / "wide.npz", x=x[:, :5])
    np.savez(path / "short.npz", x=x, y=y[:19])
    np.savez(path / "labels.npz", x=x, y=y + 1)
    np.savez(path / "images.npz", images=x)
    np.savez(path / "objects.npz", x=np.array([{}], dtype=object))
    np.savez(path / "number.npz", x=np.float64(3))
    np.savez(path / "none.npz", x=x[:0])
    np.save(path / "array.npy", x)
    np.save(path / "object.npy", np.array([{}], dtype=object))
    (path / "text.npz").write_text("x")
    (path / "text.keras").write_text("x")
    (path / "text.txt").write_text("x")
    with zipfile.ZipFile(path / "zip.keras", "w") as file:
        file.writestr("a", "b")
    keras.Sequential([L.Input((6,)), L.Lambda(lambda x: x), L.Dense(2)]).save(path / "lambda.keras")
    unknown = path / "unknown.keras"
    with zipfile.ZipFile(path / "plain.keras") as old, zipfile.ZipFile(unknown, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                known, own = (
                    f'"module": {m}, "class_name": "{c}"'.encode()
                    for m, c in (('"keras.layers"', "Dense"), ("null", "Own"))
                )
                assert known in content
                content = content.replace(known, own)
            new.writestr(name, content)
    return path


@pytest.fixture
def ran(place, monkeypatch, capsys):
    """Runs the command in the place; returns its exit status, output and errors."""
    monkeypatch.chdir(place)

    def run(*arguments):
        status = command_status("probe", *arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def report_of(directory):
    return SignalReport.from_json(os.path.join(directory, "signal_report.json"))


def test_the_installed_command_prints_the_report_and_writes_the_files(place, tmp_path):
    out = str(tmp_path / "new" / ("out, " + 80 * "x"))
    arguments = ["compiled.keras", "--data", "xy.npz", "--batch", "8", "--out", out]
    pytest.importorskip("keras_initkit_cli")
    # TensorFlow may say what it likes, whatever the backend: Keras imports it to save a model.
    code = "import os; os.environ.pop('TF_CPP_MIN_LOG_LEVEL', None); import keras_initkit_cli as c; exit(c.main())"
    finished = run_python("-c", code, "probe", *arguments, cwd=place, environment={"PYTHONIOENCODING": "utf-8"})
    assert finished.stderr == ""
    lines = finished.stdout.splitlines()
    assert lines[0] == "Signal of small: 2 layer calls"
    paths = [os.path.join(out, f"signal_report.{end}") for end in ("csv", "json", "png")]
    assert lines[-3:] == paths  # each on a line of its own, however long
    assert sorted(paths) == sorted(os.path.join(out, name) for name in os.listdir(out))
    report = report_of(out)
    assert str(report).splitlines() == [line.rstrip() for line in lines[: len(str(report).splitlines())]]
    x = np.load(os.path.join(place, "xy.npz"))["x"][:8]
    (inputs,) = [row for row in report.rows if row.tap[:2] == ("input", "hidden")]
    assert inputs.moments.mean == pytest.approx(x.mean(), rel=1e-6)
    assert inputs.shape == (8, 6)
    with open(paths[0], newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(report.rows)
    assert min(matplotlib.image.imread(paths[2]).shape[:2]) > 300


def test_without_data_inputs_are_drawn_by_the_seed(ran, tmp_path):
    for seed in ("0", "0", "1"):
        status, out, _ = ran("plain.keras", "--batch", "9", "--seed", seed, "--out", str(tmp_path / seed))
        assert status == 0
        assert re.search(r"- Inputs were drawn.*\(9, 6\)", out)
    first, second = (report_of(tmp_path / seed) for seed in ("0", "1"))
    assert first.rows[0].moments != second.rows[0].moments
    assert first.rows[0].moments.mean == pytest.approx(0, abs=5 / np.sqrt(54))  # five standard errors


def test_one_array_is_x(ran, tmp_path):
    assert ran("plain.keras", "--data", "array.npy", "--batch", "7", "--out", str(tmp_path))[0] == 0
    assert report_of(tmp_path).rows[0].shape == (7, 6)


def test_json_can_be_read_as_the_report(ran, tmp_path):
    status, out, error = ran("compiled.keras", "--data", "xy.npz", "--json", "--diagnose", "--out", str(tmp_path))
    printed = json.loads(out)
    (tmp_path / "printed.json").write_text(out)
    graver = any(finding["severity"] == "error" for finding in printed["findings"])  # by the backend's draw
    assert (status, error) == (int(graver), "")
    assert SignalReport.from_json(tmp_path / "printed.json") == report_of(tmp_path)
    assert [os.path.basename(path) for path in printed["files"]] == [
        f"signal_report.{end}" for end in ("csv", "json", "png")
    ]
    assert {finding["kind"] for finding in printed["findings"]} == {"saturated_units"}


def test_all_there_is_where_the_batch_is_larger(ran, tmp_path):
    assert ran("plain.keras", "--data", "x.npz", "--out", str(tmp_path))[0] == 0
    assert report_of(tmp_path).rows[0].shape == (20, 6)


def test_inputs_by_name(ran, tmp_path):
    status, _, _ = ran("two.keras", "--data", "two.npz", "--batch", "5", "--out", str(tmp_path))
    assert status == 0
    (joined,) = [row for row in report_of(tmp_path).rows if row.tap[:2] == ("input", "joined")]
    x = np.load("x.npz")["x"][:5]
    assert joined.moments.mean == pytest.approx(np.concatenate([x[:, :4], x[:, :3]], 1).mean(), rel=1e-6)


def test_labels_without_a_loss_are_left_out_and_it_says_so(ran):
    status, out, _ = ran("plain.keras", "--data", "xy.npz")
    assert status == 0
    assert "The labels are not used: the model was saved without a loss." in out
    assert "not used" not in ran("compiled.keras", "--data", "xy.npz")[1]


REFUSED = {
    "no model": (["nothing.keras"], "'nothing.keras' does not exist"),
    "a directory": (["."], "'.' is a directory; expected a file that model.save"),
    "no zip": (["text.keras"], "'text.keras' cannot be read as a Keras model.*expected a file that model.save"),
    "another zip": (["zip.keras"], "'zip.keras' cannot be read as a Keras model.*config.json"),
    "another ending": (["text.txt"], "got 'text.txt', expected a file that model.save"),
    "unsafe": (
        ["lambda.keras"],
        "holds a Lambda layer.*If you trust the file.*safe_mode=False.*call keras_initkit there",
    ),
    "unknown layer": (["unknown.keras"], "needs 'Own', which only your own code defines. Import that code"),
    "no data": (["plain.keras", "--data", "nothing.npz"], "'nothing.npz' does not exist"),
    "text data": (["plain.keras", "--data", "text.npz"], "'text.npz' cannot be read as arrays.*expected an .npz"),
    "objects alone": (["plain.keras", "--data", "object.npy"], "'object.npy' cannot be read as arrays"),
    "objects": (["plain.keras", "--data", "objects.npz"], "'objects.npz' cannot be read as arrays"),
    "no x": (
        ["plain.keras", "--data", "images.npz"],
        "'images.npz' holds images; expected an array x, or one for each",
    ),
    "x of two": (["two.keras", "--data", "x.npz"], "got 1 arrays, expected 2"),
    "a number": (["plain.keras", "--data", "number.npz"], r"shapes x: \(\); expected the same number of examples"),
    "empty": (["plain.keras", "--data", "none.npz"], "got no examples, expected at least one"),
    "a shape": (["plain.keras", "--data", "wide.npz"], r"got shape \(20, 5\), expected \(None, 6\)"),
    "lengths": (["plain.keras", "--data", "short.npz"], r"x: \(20, 6\), y: \(19,\); expected the same number"),
    "labels": (["compiled.keras", "--data", "labels.npz"], "y"),
    "batch 0": (["plain.keras", "--batch", "0"], "--batch: got '0', expected a positive integer"),
    "batch of text": (["plain.keras", "--batch", "many"], "--batch: got 'many', expected a positive integer"),
    "a seed": (["plain.keras", "--seed", "-1"], "--seed: got '-1', expected an integer from 0 to 2147483647"),
    "out": (
        ["plain.keras", "--out", "text.txt/out"],
        "--out: 'text.txt/out' cannot be written.*give another directory",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_probed_is_one_line(ran, case):
    arguments, message = REFUSED[case]
    status, out, error = ran(*arguments)
    assert status == 2
    assert out.strip() == ""
    (line,) = [line for line in error.splitlines() if "keras-initkit" in line]
    assert error.splitlines()[-1] == line
    assert re.match(f"keras-initkit probe: error: .*{message}", line)


def test_out_is_tried_before_the_work(ran, monkeypatch):
    monkeypatch.setattr("keras_initkit.cli._model_files.load_model", lambda path: pytest.fail("the model was loaded"))
    assert ran("plain.keras", "--out", "text.txt")[0] == 2


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit):
        cli.main(["probe", "--help"])
    text = capsys.readouterr().out
    for option in ("--data FILE.npz", "--batch N", "--seed S", "--out DIR"):
        assert option in text
