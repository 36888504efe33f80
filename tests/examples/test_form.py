"""What all examples keep, and keras-initkit reproduce."""

import json
import pathlib
import sys

import matplotlib.pyplot as plt
import pytest
from helpers import command_status

from keras_initkit import examples
from keras_initkit.cli import _reproduce_command, main
from keras_initkit.examples import _form

SCRIPTS = sorted(pathlib.Path(examples.__file__).parent.glob("plot_*.py"))


def test_every_script_has_its_place_in_the_gallery():
    assert sorted(f"plot_{name}.py" for name in examples.NAMES) == [script.name for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_a_page_on_the_package_alone(script):
    text = script.read_text()
    assert len(text.splitlines()) <= 130
    assert f'example = start("{script.stem.removeprefix("plot_")}"' in text
    for part in ("# %%\n", "example.table(", "example.figure(", "example.found("):
        assert part in text
    imported = [line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert not [name for name in imported if "._" in name or name.split(".")[0] in ("tensorflow", "jax", "torch")]


@pytest.fixture
def gallery(tmp_path, monkeypatch):
    """A gallery of one small script."""
    (tmp_path / "plot_small.py").write_text(
        "import keras\nfrom keras_initkit.examples import start\n"
        'example = start("small", width=3, names="a,b")\n'
        'example.found(drawn=float(keras.random.normal(())), nan=float("nan"), **vars(example.options))\n'
    )
    monkeypatch.setattr(_form, "__file__", str(tmp_path / "form.py"))
    for module in (_form, examples, _reproduce_command):
        monkeypatch.setattr(module, "NAMES", ("small",))
    return tmp_path


def test_reproduce_hands_options_on_and_returns_the_numbers(gallery, monkeypatch):
    monkeypatch.setattr("sys.argv", ["mine", "--theirs"])
    out = gallery / "with space"
    colours = plt.rcParams["axes.prop_cycle"]
    numbers = _form.reproduce("small", str(out), seed=4, width=5)
    assert (numbers["seed"], numbers["width"], numbers["names"], numbers["data"]) == (4, 5, "a,b", "digits")
    written = json.loads((out / "small.json").read_text())
    assert written["options"] == {"seed": 4, "data": "digits", "width": 5, "names": "a,b"}
    assert written["numbers"]["nan"] is None
    assert _form.reproduce("small", str(out), seed=4)["drawn"] == numbers["drawn"]
    assert _form.reproduce("small", str(out), seed=5)["drawn"] != numbers["drawn"]
    assert sys.argv == ["mine", "--theirs"]
    assert plt.rcParams["axes.prop_cycle"] == colours


def test_the_command_runs_all_and_names_the_files(gallery, capsys):
    out = str(gallery / "out")
    assert main(["reproduce", "all", "--out", out, "--seed", "7"]) == 0
    assert str(gallery / "out" / "small.json") in capsys.readouterr().out
    assert json.loads((gallery / "out" / "small.json").read_text())["options"]["seed"] == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "name: got 'nothing', expected one of all, six_layers, "),
        (["all", "--seed", "-1"], "--seed: got '-1', expected an integer from 0"),
        (["all", "--seed", "x"], "--seed: got 'x', expected an integer from 0"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path):
    assert command_status("reproduce", *arguments, "--out", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"name: got '\.\./x', expected one of six_layers, "):
        _form.reproduce("../x")


@pytest.mark.slow
def test_a_script_that_trains_gives_the_same_numbers_for_the_same_seed(tmp_path):
    def numbers(seed):
        return _form.reproduce("batch_norm_gamma_beta", str(tmp_path), seed=seed, epochs=1)

    first, again, other = numbers(3), numbers(3), numbers(4)
    assert first == again
    assert first["layers"] != other["layers"]


MNIST = pathlib.Path(__file__).parents[2].parent / "shared" / "data" / "mnist_t10k.npz"


@pytest.mark.skipif(not MNIST.exists(), reason="the MNIST file is not here")
def test_mnist_is_cut_to_a_size_that_digits_have(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["plot_small.py", "--data", str(MNIST), "--out", str(tmp_path)])
    images = _form.start("small").images(examples=1000)
    assert images.x_train.shape == (1000, 28, 28)
    assert images.x_test.shape == (2000, 28, 28)
    assert len(images.y_train) == 1000


def test_a_log_directory_is_its_runs_own(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["plot_small.py", "--out", str(tmp_path)])
    example = _form.start("small")
    directory = pathlib.Path(example.log_dir("first"))
    assert directory == tmp_path / "logs" / "small" / "first"
    (directory / "train").mkdir(parents=True)
    (directory / "train" / "events.out.tfevents.1.old").touch()
    (directory / "notes.txt").touch()
    example.log_dir("second")
    assert (directory / "train" / "events.out.tfevents.1.old").exists()
    example.log_dir("first")
    assert [path.name for path in directory.rglob("*") if path.is_file()] == ["notes.txt"]
