"""`keras-initkit compare`, from the command line to its files."""

import csv
import glob
import json
import os
import shlex

import keras
import matplotlib.image
import numpy as np
import pytest
from helpers import Terminal, command_status, events, run_python
from tensorboard.plugins.hparams import plugin_data_pb2

from keras_initkit.comparison._hparams import VERDICT

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow stands for all: trains many models"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, x=np.random.default_rng(0).standard_normal((60, 6, 4)), y=np.tile([0, 1], 30))
    return str(path)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A small comparison that the command made: its directories and what it printed."""
    place = tmp_path_factory.mktemp("place") / ("a [red] place, " + 80 * "x")
    place.mkdir()
    out, logs = str(place / "out"), str(place / "my logs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.chdir(place)
        arguments = [
            "compare",
            "--initializers",
            "he_normal, zeros,activation_scaling,he_normal",
            "--activation",
            "tanh",
        ]
        arguments += ["--depth", "2", "--epochs", "2", "--seeds", "2", "--seed", "7"]
        arguments += ["--data", data, "--out", out, "--log-dir", logs]
        ran = run_python("-m", "keras_initkit_cli", *arguments, status=None)
    return ran, out, logs


TRENDS = {"he_normal": "healthy", "zeros": "vanishes", "activation_scaling": "healthy"}
RUNS = {f"{name}-{seed}" for name in ("he_normal", "zeros", "activation_scaling") for seed in (7, 8)}


def test_it_ends_by_the_line_that_opens_tensorboard(finished):
    ran, out, logs = finished
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    *before, last = ran.stdout.rstrip().splitlines()
    assert last == f"tensorboard --logdir '{logs}'"
    assert shlex.split(last) == ["tensorboard", "--logdir", logs]
    paths = {os.path.join(out, name) for name in os.listdir(out)}
    assert set(before[-len(paths) :]) == paths  # each on a line of its own, however long
    for name in ("he_normal", "zeros", "activation_scaling", "verdict"):
        assert name in ran.stdout
    assert "…" not in ran.stdout


def test_json_alone_on_stdout_and_a_progress_bar_on_a_terminal(data, tmp_path, capsys, monkeypatch):
    stderr = Terminal(monkeypatch)
    monkeypatch.setattr("sys.stderr", stderr)
    small = ["--initializers", "zeros", "--depth", "1", "--epochs", "1", "--data", data]
    places = ["--out", str(tmp_path / "out"), "--log-dir", str(tmp_path / "logs")]
    assert command_status("compare", *small, *places, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["settings"]["depth"] == 1
    assert [run["initializer"] for run in result["runs"]] == ["zeros"]
    assert sorted(result["files"]) == sorted(str(tmp_path / "out" / name) for name in os.listdir(tmp_path / "out"))
    assert result["log_dir"] == str(tmp_path / "logs")
    assert "zeros" in stderr.getvalue()
    assert "100%" in stderr.getvalue()


def test_files(finished):
    _, out, _ = finished
    assert sorted(os.listdir(out)) == [
        "activation_histograms.png",
        "comparison.csv",
        "comparison.json",
        "training.png",
        "variance_by_layer.png",
    ]
    with open(os.path.join(out, "comparison.json"), encoding="utf-8") as file:
        result = json.load(file, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert result["settings"]["seeds"] == 2
    assert [(run["initializer"], run["seed"]) for run in result["runs"]] == [
        (name, seed) for name in ("he_normal", "zeros", "activation_scaling") for seed in (7, 8)
    ]
    with open(os.path.join(out, "comparison.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, result["rows"], strict=True):
        assert list(row) == list(expected)
        for column, value in expected.items():
            if value is None:
                assert row[column] == "nan"  # the factor between variances of 0
            else:
                assert type(value)(row[column]) == value
    assert rows[1]["activation_variance_last"] == "0.0"
    # Seeds are averaged from the runs of the same file.
    variances = [run["forward"][-1] for run in result["runs"][:2]]
    assert float(rows[0]["activation_variance_last"]) == pytest.approx(np.sqrt(np.prod(variances)), rel=1e-12)


@pytest.mark.parametrize("name", ["activation_histograms.png", "training.png", "variance_by_layer.png"])
def test_figures_are_pictures(finished, name):
    picture = matplotlib.image.imread(os.path.join(finished[1], name))
    assert min(picture.shape[:2]) > 300
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20  # lines and text, not an empty canvas


def tags(directory):
    return {value.tag for event in events(directory) for value in event.summary.value}


def test_runs_in_tensorboard(finished):
    _, _, logs = finished
    files = [os.path.relpath(path, logs) for path in glob.glob(os.path.join(glob.escape(logs), "**"), recursive=True)]
    runs = {os.path.dirname(path) or "." for path in files if "events.out.tfevents" in path}
    assert runs == {".", *RUNS, *(f"{run}/{part}" for run in RUNS for part in ("train", "validation"))}
    assert all("events.out.tfevents" in path for path in files if os.path.isfile(os.path.join(logs, path)))


def test_every_run_has_its_statistics_and_its_curves(finished):
    _, out, logs = finished
    with open(os.path.join(out, "comparison.json"), encoding="utf-8") as file:
        result = json.load(file)
    layers = ("hidden_01", "hidden_02", "classifier")
    for run in result["runs"]:
        directory = os.path.join(logs, f"{run['initializer']}-{run['seed']}")
        found = tags(os.path.join(directory, "train"))
        for statistic in ("activation_variance", "activation_gradient_variance", "weight_gradient_variance"):
            assert {f"{statistic}/{layer}" for layer in layers} <= found
        assert {"epoch_loss", "epoch_accuracy", "custom_scalars__config__"} <= found
        assert {"epoch_loss", "epoch_accuracy"} <= tags(os.path.join(directory, "validation"))
        # What the log shows of the first step is what the comparison holds.
        first = next(
            value.tensor.float_val[0]
            for event in events(os.path.join(directory, "train"))
            for value in event.summary.value
            if value.tag == "activation_variance/hidden_02" and event.step == 0
        )
        assert first == pytest.approx(run["forward"][1], rel=1e-6)


def hparams(directory):
    """What the HParams plugin finds there, by tag."""
    found = {}
    for event in events(directory):
        for value in event.summary.value:
            content = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
            found[value.tag] = getattr(content, content.WhichOneof("data"))
    return found


def test_runs_are_sessions_with_their_hyperparameters(finished, data):
    _, _, logs = finished
    experiment = hparams(logs)["_hparams_/experiment"]
    names = [info.name for info in experiment.hparam_infos]
    assert [(info.name.group, info.name.tag) for info in experiment.metric_infos] == [
        ("validation", "epoch_accuracy"),
        ("validation", "epoch_loss"),
        ("train", "epoch_accuracy"),
        ("train", "epoch_loss"),
    ]
    for run in RUNS:
        found = hparams(os.path.join(logs, run))
        assert set(found) == {"_hparams_/session_start_info", "_hparams_/session_end_info"}
        values = {
            name: getattr(value, value.WhichOneof("kind"))
            for name, value in found["_hparams_/session_start_info"].hparams.items()
        }
        name, seed = run.rsplit("-", 1)
        # Random labels: nothing is learned, whatever the signal does.
        assert [values.pop(column) for column in VERDICT] == ["no", *(2 * [TRENDS[name]])]
        assert values == {
            "activation": "tanh",
            "data": data,
            "depth": 2,
            "epochs": 2,
            "initializer": name,
            "learning_rate": 0.01,
            "seed": int(seed),
            "training_batch_size": 32,
            "units": 128,
        }
        assert sorted([*values, *VERDICT]) == sorted(names)
        assert found["_hparams_/session_end_info"].status == 1  # STATUS_SUCCESS


def test_a_run_that_fails_is_marked_so(tmp_path):
    from keras_initkit.comparison._hparams import HPARAMS, session

    values = {name: "x" if kind is str else 1 for name, kind in HPARAMS.items()}
    with pytest.raises(KeyError), session(str(tmp_path), {**values, "batch_size": 1}):
        raise KeyError
    assert hparams(str(tmp_path))["_hparams_/session_end_info"].status == 2  # STATUS_FAILURE


@pytest.fixture
def refused(monkeypatch, capfd, tmp_path, data):
    """Runs the command in an empty directory, where it must be refused; returns its line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: pytest.fail("training began"))

    def run(*arguments):
        arguments = ["--data", data, *arguments] if "--data" not in arguments else arguments
        status = command_status("compare", "--depth", "1", "--epochs", "1", *arguments)
        printed = capfd.readouterr()
        assert status == 2
        assert "Traceback" not in printed.err
        ours = [line for line in printed.err.splitlines() if "keras-initkit" in line]
        assert len(ours) == 1
        assert printed.err.splitlines()[-1] == ours[0]
        assert ours[0].startswith(("keras-initkit compare: error: ", "keras-initkit: error: "))
        assert "tensorboard" not in printed.out
        assert not glob.glob("logs/**/events*", recursive=True)
        return ours[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--initializers", "he_norml"], ["'he_norml'", "Did you mean", "he_normal"]),
        (["--initializers", "zeros,activation_scalin"], ["'activation_scalin'", "Did you mean", "activation_scaling"]),
        (["--initializers", ","], ["got []", "expected a list of initializers"]),
        (["--initializers", "dirac"], ["'dirac'", "Dense", "Leave it out"]),
        (["--activation", "rleu"], ["'rleu'", "Did you mean", "'relu'"]),
        (["--activation", "softmax"], ["softmax does not act on each element", "Expected", "'relu'", "'linear'"]),
        (["--activation", "softmax", "--initializers", "zeros"], ["softmax does not act on each element", "Expected"]),
        (["--activation", "threshold"], ["threshold"]),
        (["--depth", "0"], ["depth: got '0'", "expected a positive integer"]),
        (["--depth", "-3"], ["depth: got '-3'", "expected a positive integer"]),
        (["--depth", "2.5"], ["depth: got '2.5'", "expected a positive integer"]),
        (["--epochs", "0"], ["epochs: got '0'", "expected a positive integer"]),
        (["--epochs", "many"], ["epochs: got 'many'", "expected a positive integer"]),
        (["--seeds", "0"], ["seeds: got '0'", "expected a positive integer"]),
        (["--seeds", "1e3"], ["seeds: got '1e3'", "expected a positive integer"]),
        (["--seed", "-1"], ["seed: got '-1'", "expected an integer from 0 to 2147483647"]),
        (["--seed", "x"], ["seed: got 'x'", "expected an integer from 0"]),
        (["--data", "nowhere.npz"], ["'nowhere.npz'", "nor a file that exists", "expected an .npz file"]),
        (["--depth"], ["--depth", "expected one argument", "--help"]),
        (["--colour", "red"], ["unrecognized arguments: --colour red", "--help"]),
    ],
)
def test_bad_arguments_are_one_line(refused, arguments, expected):
    line = refused(*arguments)
    for part in expected:
        assert part in line


X, Y = np.arange(40.0).reshape(20, 2), np.tile([0, 1], 10)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        (None, "cannot read"),
        ({"x": X}, "cannot read"),
        ({"x": X, "y": Y[:5]}, "holds x of shape (20, 2) and y of shape (5,)"),
        ({"x": np.where(X == 3, np.nan, X), "y": Y}, "1 NaN or infinite values"),
        ({"x": X.astype(object), "y": Y}, "cannot read"),
        ({"x": X, "y": Y + 0.25}, "not class numbers"),
        ({"x": X[:6], "y": Y[:6]}, "holds 6 examples of 2 classes"),
    ],
)
def test_bad_data_files_are_one_line(refused, tmp_path, arrays, expected):
    path = tmp_path / "bad.npz"
    path.write_text("not a zip file\nbut two lines") if arrays is None else np.savez(path, **arrays)
    line = refused("--data", str(path))
    assert str(path) in line
    assert expected in line
    assert "expected" in line


def test_directories_that_cannot_be_written_are_one_line(refused, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for place in ("file", "file/below"):
        for option in ("--out", "--log-dir"):
            line = refused(option, place)
            assert f"'{place}' cannot be written" in line
            assert "give another directory" in line
            assert option.strip("-").replace("-", "_") in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_log_directory_with_other_runs_is_one_line(refused, tmp_path):
    (tmp_path / "old" / "run" / "train").mkdir(parents=True)
    (tmp_path / "old" / "run" / "train" / "events.out.tfevents.1.host").write_bytes(b"")
    line = refused("--log-dir", "old")
    assert "'old' holds other runs" in line
    assert "give a new or an empty directory" in line
    assert os.listdir("old") == ["run"]


def test_the_installed_command_says_one_line(tmp_path):
    ran = run_python("-m", "keras_initkit_cli", "compare", "--activation", "rleu", "--out", tmp_path, status=2)
    assert "Traceback" not in ran.stderr
    lines = ran.stderr.splitlines()
    assert [line for line in lines if "keras-initkit" in line] == lines[-1:]
    assert "Did you mean 'relu'" in lines[-1]
