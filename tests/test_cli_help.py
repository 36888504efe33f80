"""`keras-initkit --help` and mistaken arguments: answered before Keras is imported."""

import pytest
from helpers import run_python

from keras_initkit import cli
from keras_initkit.examples import NAMES

pytest.importorskip("keras_initkit_cli")

CODE = """
import sys, keras_initkit_cli
try:
    status = keras_initkit_cli.main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
print(status, [name for name in ("keras", "tensorflow", "jax", "torch", "keras_initkit") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--help"], 0), (["compare", "--help"], 0), (["probe"], 2), (["compare", "--depth"], 2), (["other"], 2)],
)
def test_neither_keras_nor_a_backend_is_imported(arguments, status):
    finished = run_python("-c", CODE, *arguments)
    assert finished.stdout.splitlines()[-1] == f"{status} []"
    if status == 0:
        assert finished.stderr == ""
    else:
        (line,) = finished.stderr.splitlines()
        assert line.startswith("keras-initkit")
        assert line.endswith("--help")


def test_a_command_runs_as_that_of_the_package():
    finished = run_python("-c", CODE, "reproduce", "nothing")
    assert finished.stdout.splitlines()[-1].startswith("2 ['keras'")
    assert "keras-initkit reproduce: error: name: got 'nothing', expected all or one of six_layers" in finished.stderr


@pytest.mark.parametrize("command", ["compare", "probe", "verify", "list", "reproduce"])
def test_every_command_has_help_in_sentences(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert any(line.endswith(".") for line in text.splitlines()[1:4])
    assert "(default: None)" not in text
    assert "(default: False)" not in text


def test_help_names_the_examples(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "--help"])
    assert f"all, or one of {', '.join(sorted(NAMES))}" in capsys.readouterr().out
