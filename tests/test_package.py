import functools
import inspect
import json
import pathlib
import pkgutil
import re

import keras
import pytest
from helpers import run_python

import keras_initkit as ik

STEPS = ("import keras", "import keras_initkit as ik", "import keras_initkit.callbacks", "ik.LayerStatsCallback")


@functools.cache  # seconds for a process that imports Keras
def loaded():
    """What each of `STEPS` in a row adds to the modules of a new process."""
    counted = "\nprint(json.dumps(sorted(set(sys.modules) - seen)))\nseen |= set(sys.modules)\n"
    result = run_python("-c", "import json, sys\nseen = set()\n" + counted.join([*STEPS, ""]))
    return dict(zip(STEPS, [set(json.loads(line)) for line in result.stdout.splitlines()[-len(STEPS) :]], strict=True))


def test_importing_it_loads_little_beside_keras():
    added = loaded()["import keras_initkit as ik"]
    assert "keras_initkit" in added
    heavy = {"matplotlib", "sklearn", "scipy.stats", "tensorboard", "rich.progress", "pytest"}
    assert {name for name in added if name in heavy or name.split(".")[0] in heavy} == set()
    assert not {name for name in added if name.startswith("keras_initkit.comparison")}


def test_the_callback_loads_no_plots():
    added = set().union(*(loaded()[step] for step in STEPS[1:]))
    assert "keras_initkit.callbacks" in added
    assert not {name for name in added if name.split(".")[0] in {"matplotlib", "sklearn"}}


VERBS = {"compare", "diagnose", "initialize", "layer_fans", "predict", "probe", "repair", "verify", "watch"}
CLASSES = {"Finding", "LayerStatsCallback", "SignalReport"}
SUBPACKAGES = {
    *("callbacks", "capture", "cli", "comparison", "diagnosis", "examples", "initializers", "inputs", "plots"),
    *("prediction", "report", "schemes", "signal", "statistics", "structure", "testing", "theory"),
}


def test_public_names():
    assert set(ik.__all__) == VERBS | CLASSES | SUBPACKAGES | {"__version__"}
    assert {name for name in dir(ik) if not name.startswith("__")} == set(ik.__all__) - {"__version__"}
    assert all(inspect.isfunction(getattr(ik, name)) for name in VERBS)
    assert all(inspect.isclass(getattr(ik, name)) for name in CLASSES)
    assert all(inspect.ismodule(getattr(ik, name)) for name in SUBPACKAGES)
    with pytest.raises(AttributeError, match="module 'keras_initkit' has no attribute 'nothing'"):
        _ = ik.nothing


def test_every_folder_is_among_the_public_names_and_lists_its_own():
    assert {
        module.name for module in pkgutil.iter_modules(ik.__path__) if not module.name.startswith("_")
    } == SUBPACKAGES
    for name in SUBPACKAGES - {"cli"}:
        module = getattr(ik, name)
        assert set(getattr(module, "__all__", ())) <= set(dir(module)) | {"Example", "NAMES", "reproduce", "start"}


def test_a_name_is_loaded_when_it_is_first_used():
    assert "keras_initkit.callbacks" not in loaded()["import keras_initkit as ik"]
    assert not {"keras_initkit.comparison", "keras_initkit.testing", "keras_initkit.signal"} & set().union(
        *loaded().values()
    )


@pytest.mark.parametrize("command", ["mypy", "pyright"])
def test_a_type_checker_knows_the_face(tmp_path, command):
    pytest.importorskip(command)
    names = sorted(VERBS | CLASSES)
    user = tmp_path / "user.py"
    user.write_text(
        "import keras_initkit as ik\n"
        + "".join(f"reveal_type(ik.{name})\n" for name in names)
        + "reveal_type(ik.callbacks.every)\nreveal_type(ik.schemes.register_scheme)\nik.nothing\n"
    )
    root = pathlib.Path(ik.__file__).parents[1]
    options = ["--follow-imports=silent", "--ignore-missing-imports"] if command == "mypy" else []
    # mypy finds an installed package by itself, and refuses to be told where.
    environment = {"MYPYPATH": "" if root.name == "site-packages" else str(root), "PYTHONPATH": str(root)}
    done = run_python("-m", command, *options, "user.py", status=None, cwd=tmp_path, environment=environment)
    found = "Revealed type is" if command == "mypy" else "Type of"
    types = [line.split(" is ", 1)[1].strip('"') for line in done.stdout.splitlines() if found in line]
    assert len(types) == len(names) + 2, done.stdout + done.stderr
    returned = {name: revealed.rpartition("->")[2].strip() for name, revealed in zip(names, types, strict=False)}
    expected = {
        **{"compare": "Comparison", "diagnose": "Findings", "initialize": "InitializationReport"},
        **{"layer_fans": "VariableMap[Fans]", "predict": "Prediction", "probe": "SignalReport"},
        **{"repair": "SignalReport", "Finding": "Finding", "LayerStatsCallback": "LayerStatsCallback"},
        **{"SignalReport": "SignalReport", "verify": "Verification", "watch": "WatchedStep"},
    }
    for name, revealed in returned.items():
        plain = re.sub(r"[\w.]+\.(?=\w)", "", revealed)  # mypy writes where a class is defined
        plain = re.sub(r"(WatchedStep)\[.*", r"\1", plain)
        plain = re.sub(r"VariableMap\[tuple\[.*?fallback=(\w+)\]\]", r"VariableMap[\1]", plain)
        assert plain.removeprefix("type[").rstrip("]") == expected[name].rstrip("]"), f"{name}: {revealed}"
    assert "nothing" in done.stdout  # an unknown name is an error
    assert done.returncode == 1


def test_every_initializer_is_registered():
    classes = [name for name in ik.initializers.__all__ if inspect.isclass(getattr(ik.initializers, name))]
    assert len(classes) > 15
    for name in classes:
        registered = f"keras_initkit>{name}"
        assert keras.saving.get_registered_object(registered) is getattr(ik.initializers, name)


def test_the_version_is_the_one_that_is_installed():
    from importlib.metadata import version

    assert version("keras-initkit") == ik.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", ik.__version__)


@pytest.mark.skipif(not pathlib.Path(__file__).parents[1].joinpath("CHANGELOG.md").exists(), reason="not in a checkout")
def test_the_changelog_and_the_bounds_speak_of_this_version():
    root = pathlib.Path(__file__).parents[1]
    assert f"## {ik.__version__}" in (root / "CHANGELOG.md").read_text(encoding="utf-8")
    oldest = dict(re.findall(r"^(\w+)==([\d.]+)", (root / ".ci" / "oldest.txt").read_text(), re.M))
    bounds = dict(re.findall(r"(keras|tensorflow)>=([\d.]+)", (root / "setup.cfg").read_text()))
    assert oldest["keras"].startswith(bounds["keras"])
    assert oldest["tensorflow"].startswith(bounds["tensorflow"])
