"""`keras-initkit --help` and mistaken arguments are answered before Keras is imported; frameworks' noise is hidden."""

import os
import pathlib
import re
import sys

import pytest
from helpers import COMMANDS, run_python

from keras_initkit import __version__, cli
from keras_initkit.cli._parser import SCHEMES
from keras_initkit.examples import NAMES
from keras_initkit.schemes import scheme_names

pytest.importorskip("keras_initkit_cli")

CODE = """
import sys, keras_initkit_cli
try:
    status = keras_initkit_cli.main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code
heavy = ("keras", "tensorflow", "jax", "torch", "numpy", "scipy", "matplotlib", "rich", "keras_initkit")
print(status, [name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["compare", "--help"]], ids=" ".join)
def test_help_needs_no_framework(arguments):
    finished = run_python("-c", CODE, *arguments)
    *text, last = finished.stdout.splitlines()
    assert (last, finished.stderr) == ("0 []", "")
    if "--version" in arguments:
        assert text == [f"keras-initkit {__version__}"]
    else:
        assert text[0].startswith("usage: keras-initkit")


MISTAKES = {
    "a command": (["prob"], "got 'prob', expected one of .*, doctor (did you mean 'probe'?); see keras-initkit --help"),
    "an experiment": (["reproduce", "six_layer"], "got 'six_layer', expected .* (did you mean 'six_layers'?)"),
    "nothing like it": (["reproduce", "other"], "expected one of all, six_layers, .*, presets; see keras-initkit r"),
    "no model": (["probe"], "the following arguments are required: MODEL.keras; see keras-initkit probe --help"),
    "no value": (["compare", "--depth"], "argument --depth: expected one argument"),
    "an option": (["list", "--colour"], "unrecognized arguments: --colour; see keras-initkit list --help"),
    "a number": (["compare", "--depth", "many"], "argument --depth: got 'many', expected a positive integer"),
    "no file": (["diagnose", "no.keras"], "'no.keras' does not exist; expected a file that model.save('name.keras')"),
    "a directory": (["probe", "."], "'.' is a directory; expected a file that model.save('name.keras') wrote"),
    "HDF5": (["repair", "old.h5", "-o", "b.keras"], "got 'old.h5', expected .* Load it in Python and save it so"),
    "no output": (["initialize", "x.keras", "auto"], "'x.keras' does not exist"),
    "an ending": (["compare", "--data"], "argument --data: expected one argument"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_and_need_no_framework(case):
    arguments, message = MISTAKES[case]
    finished = run_python("-c", CODE, *arguments)
    assert finished.stdout == "2 []\n"
    (line,) = finished.stderr.splitlines()
    assert re.match(r"keras-initkit( \w+)?: error: ", line)
    assert re.search(re.escape(message).replace(r"\.\*", ".*"), line), line
    assert line.endswith("--help")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_in_sentences(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert any(line.endswith(".") for line in text.splitlines()[1:4])
    assert "(default: None)" not in text
    assert "(default: False)" not in text
    assert ("(default: 0)" in text) == ("--seed" in text)
    assert "--json" in text


def test_help_lists_the_commands_in_eighty_columns_and_says_what_statuses_mean(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^    ([a-z]+) +[a-z]", text, re.M) == COMMANDS
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"^  (\d+) ", text, re.M) == ["0", "1", "2", "130", "141"]


def test_help_names_the_examples_and_the_schemes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for command, names in (("reproduce", f"all, or one of {', '.join(NAMES)}"), ("initialize", ", ".join(SCHEMES))):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert names in capsys.readouterr().out
    assert set(SCHEMES) <= set(scheme_names())


NOISY = """
import os, sys, keras_initkit_cli
with keras_initkit_cli._hidden_noise() as stderr:
    os.write(2, b"noise\\n")
    print("more noise", file=sys.stderr)
    print("for the user", file=stderr)
    {end}
os.write(2, b"after\\n")
"""
ENDS = {
    "well": ("pass", 0, "for the user\nafter\n"),
    "an error": ("raise KeyError", 1, "for the user\nnoise\nmore noise\nTraceback"),
    "aborted by C++": ("os.abort()", -6, "for the user\nnoise\n"),
    "stdin closed": ("pass", 0, "for the user\nafter\n"),
    "no fork": ("pass", 0, "noise\nmore noise\nfor the user\nafter\n"),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows shows all")
@pytest.mark.parametrize("case", ENDS)
def test_noise_is_shown_only_if_the_command_fails(case):
    end, status, shown = ENDS[case]
    code = NOISY.format(end=end)
    code = {"no fork": "import os\ndel os.fork\n", "stdin closed": "import os\nos.close(0)\n"}.get(case, "") + code
    finished = run_python("-u", "-c", code, status=status)
    assert finished.stderr.startswith(shown)
    assert finished.stderr == shown or case in ("an error", "aborted by C++")


def test_an_unknown_backend_is_one_line():
    finished = run_python("-m", "keras_initkit_cli", "list", status=2, environment={"KERAS_BACKEND": "foo"})
    assert finished.stdout == ""
    assert finished.stderr.splitlines()[-1].startswith("keras-initkit list: error: ")
    assert finished.stderr.endswith("foo. keras-initkit doctor shows what is installed.\n")


def test_the_command_is_beside_this_python():
    command = pathlib.Path(sys.executable).with_name("keras-initkit")
    if not command.exists():
        pytest.skip("the package is not installed here")
    finished = run_python("-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])", command, "--version")
    assert finished.stdout == f"keras-initkit {__version__}\n"
