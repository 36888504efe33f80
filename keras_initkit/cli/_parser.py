"""The command line's arguments. This file imports nothing of the package: it is read before Keras is imported."""

from __future__ import annotations

import argparse
import pathlib
import re
import runpy
import types
from collections.abc import Callable
from typing import Any, NoReturn

_DESCRIPTION = """\
See how activations and gradients flow through a saved Keras model, repair and
initialize it, and compare initializers. keras-initkit COMMAND --help lists the
options of a command.
"""
_STATUSES = """\
exit status:
  0    done
  1    diagnose or probe --diagnose found an error, repair left one, a step
       differs when it is measured (verify), something does not work (doctor)
  2    wrong arguments, files or data; one line on stderr says which
  130  interrupted
  141  the reader of the output has gone (keras-initkit list | head)
"""
SCHEMES = (
    *("auto", "lsuv", "data_dependent", "fixup", "pretraining", "gradinit", "metainit", "reset"),
    *("gpt2", "nanochat", "deepnorm", "subln", "mimetic"),
)
_PACKAGE = pathlib.Path(__file__).parents[1]
# Run, not imported: that would import Keras.
_argument = types.SimpleNamespace(**runpy.run_path(str(_PACKAGE / "cli" / "_argument_types.py")))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Prints one line, without the usage before it."""
        if unknown := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            known = re.findall(r"[\w-]+", unknown[2])
            message = f"got {unknown[1]!r}, expected one of {', '.join(known)}{_argument.near(unknown[1], known)}"
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses unknown arguments here, where it is known of which command they are."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Leaves out a default that says nothing: `None` or `False`."""
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of `keras-initkit`; `command` is the name of the command, or `None`."""
    version = runpy.run_path(str(_PACKAGE / "_version.py"))["__version__"]
    experiments = runpy.run_path(str(_PACKAGE / "examples" / "_names.py"))["NAMES"]
    parser = _Parser(
        prog="keras-initkit",
        description=_DESCRIPTION,
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"keras-initkit {version}")
    # Without a title argparse takes a line for all names, which the list below them repeats.
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")

    add = _add_command(
        commands,
        "diagnose",
        "name what is wrong with a saved model, show the evidence, and say what to change",
        "Measures a saved model and prints what is wrong with it, the first to fix on top. The exit status is 1 if a "
        "finding is an error.",
    )
    _add_model(add)
    _add_data(add)
    _add_batch(add)
    _add_seed(add, "seed of generated inputs and output gradients")
    _add_json(add)

    add = _add_command(
        commands,
        "repair",
        "re-initialize the faulty layers of a saved model",
        "Diagnoses a saved model, re-initializes the layers whose initialization is at fault, and writes the model "
        "that results. Healthy layers keep their weights. The exit status is 1 if an error is left.",
    )
    _add_model(add)
    _add_data(add)
    _add_batch(add)
    _add_seed(add, "seed of the new weights")
    _add_output(add)
    _add_json(add)

    add = _add_command(
        commands,
        "initialize",
        "set all kernels of a saved model by a scheme or an initializer",
        "Sets the kernels of a saved model, each by what its layer does with it, and writes the model that results.",
    )
    _add_model(add)
    add(
        "scheme",
        help=f"a scheme ({', '.join(SCHEMES)}), or the name of an initializer, such as he_normal; keras-initkit list "
        "shows them",
    )
    _add_data(add)
    add("--layers", metavar="A,B,C", type=_argument.names, help="paths of the layers to initialize (default: all)")
    add(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        type=_argument.assignment,
        help="an option of the scheme, such as steps=100; may be repeated",
    )
    _add_seed(add, "seed of all draws")
    _add_output(add)
    _add_json(add)

    add = _add_command(
        commands,
        "probe",
        "measure every layer of a saved model in one forward and one backward pass",
        "Measures every layer of a saved model in one forward and one backward pass, and prints the report.",
    )
    _add_model(add)
    _add_data(add)
    _add_batch(add)
    _add_seed(add, "seed of generated inputs and output gradients")
    add("--out", metavar="DIR", help="directory for signal_report.csv, .json and .png")
    add("--diagnose", action="store_true", help="print problems and remedies; exit status 1 if one is an error")
    _add_json(add)

    add = _add_command(
        commands,
        "verify",
        "compare a training step of a saved model with and without measuring, to the last bit",
        "Trains one step of a saved model with LayerStatsCallback and one without, from the same state, and compares "
        "all that they leave, to the last bit. The exit status is 1 if anything differs.",
    )
    _add_model(add, "a compiled model")
    _add_data(add, required=True)
    _add_batch(add, 32)
    _add_json(add)

    add = _add_command(
        commands,
        "compare",
        "train the same model from many initializers and compare them",
        "Trains the same model from each initializer, prints a table, and writes figures and TensorBoard logs.",
    )
    add(
        "--initializers",
        metavar="A,B,C",
        type=_argument.names,
        help="names of initializers; keras-initkit list shows them (default: eleven common ones)",
    )
    add("--activation", default="relu", help="name of a Keras activation for the hidden layers")
    add("--depth", metavar="N", type=_argument.count(1), default=10, help="number of hidden layers")
    add("--epochs", metavar="N", type=_argument.count(1), default=5, help="passes over the training set")
    add("--seeds", metavar="N", type=_argument.count(1), default=1, help="number of runs of each initializer")
    _add_seed(add, "seed of the first run; the others follow")
    add("--data", default="digits", help="digits, gaussian, mnist, or an .npz file with arrays x and y")
    add("--out", metavar="DIR", default="comparison", help="directory for the table and the figures")
    add("--log-dir", metavar="DIR", help="directory for TensorBoard's logs (default: logs/compare-<time>)")
    _add_json(add)

    add = _add_command(
        commands,
        "list",
        "print every initializer, or one: formula, purpose, paper",
        "Prints every initializer of this package and of Keras, or one: formula, purpose, paper.",
    )
    add("name", nargs="?", help="name of an initializer, such as he_normal; it is described with its arguments")
    _add_json(add)

    add = _add_command(
        commands,
        "reproduce",
        "run one published experiment, or all: table, figure, numbers",
        "Runs one of the gallery's experiments, or all: prints a table, and writes figures, numbers and logs.",
    )
    add("name", type=_argument.one_of("all", *experiments), help=f"all, or one of {', '.join(experiments)}")
    add("--out", metavar="DIR", default="reproduced", help="directory for figures, numbers and TensorBoard's logs")
    _add_seed(add, "seed of all random numbers")
    add("--data", default="digits", help="digits, mnist, or an .npz file with arrays x and y")
    _add_json(add)

    add = _add_command(
        commands,
        "doctor",
        "show versions, backends and devices, and check that everything works",
        "Shows versions, backends and devices, and tries what this package does: a draw, a probe, a measured step, "
        "TensorBoard's plugin. The exit status is 1 if something does not work that should.",
    )
    _add_json(add)
    return parser


def _add_command(commands: Any, name: str, summary: str, description: str) -> Callable[..., Any]:
    """Adds a command; returns the function that adds an argument to it."""
    return commands.add_parser(name, help=summary, description=description, formatter_class=_HelpFormatter).add_argument


def _add_model(add: Callable[..., Any], meaning: str = "a model") -> None:
    add("model", metavar="MODEL.keras", type=_argument.model_file, help=f"{meaning} that model.save wrote")


def _add_data(add: Callable[..., Any], required: bool = False) -> None:
    otherwise = "" if required else ". By default, inputs are generated"
    add(
        "--data",
        metavar="FILE.npz",
        type=_argument.data_file,
        required=required,
        help="arrays x and y, or one array for each input and output, by name; labels are optional. An .npy file is "
        f"x alone{otherwise}",
    )


def _add_batch(add: Callable[..., Any], default: int = 64) -> None:
    meaning = "number of examples, taken from the start of the data"
    add("--batch", metavar="N", type=_argument.count(1), default=default, help=meaning)


def _add_seed(add: Callable[..., Any], meaning: str) -> None:
    add("--seed", metavar="S", type=_argument.count(0, 2**31 - 1), default=0, help=meaning)


def _add_output(add: Callable[..., Any]) -> None:
    add(
        "-o",
        "--output",
        metavar="FILE.keras",
        type=_argument.new_model_file,
        required=True,
        help="where to write the model",
    )
    add("--overwrite", action="store_true", help="write over the file where it exists, the input included")


def _add_json(add: Callable[..., Any]) -> None:
    add("--json", action="store_true", help="print the result as JSON, and nothing else, on stdout")
