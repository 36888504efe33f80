import inspect
import json
import pathlib
import re
import subprocess
import sys

import keras
import pytest

import keras_initkit as ik


def modules_after(code):
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_it_loads_little_beside_keras():
    added = modules_after("import keras_initkit") - modules_after("import keras")
    heavy = {"matplotlib", "sklearn", "scipy.stats", "tensorboard", "rich.progress", "pytest"}
    assert {name for name in added if name in heavy or name.split(".")[0] in heavy} == set()
    assert not {name for name in added if name.startswith("keras_initkit.comparison")}


def test_the_callback_loads_no_plots():
    added = modules_after("import keras_initkit.callbacks") - modules_after("import keras")
    assert not {name for name in added if name.split(".")[0] in {"matplotlib", "sklearn"}}


def test_public_names():
    assert set(ik.__all__) - set(dir(ik)) == {
        "Finding",
        "compare",
        "diagnose",
        "initialize",
        "predict",
        "probe",
        "repair",
    }  # loaded when they are first used
    for name in ("compare", "diagnose", "initialize", "predict", "probe", "repair"):
        assert callable(getattr(ik, name))
    with pytest.raises(AttributeError, match="module 'keras_initkit' has no attribute 'nothing'"):
        _ = ik.nothing


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
    assert f"## {ik.__version__}" in (root / "CHANGELOG.md").read_text()
    oldest = dict(re.findall(r"^(\w+)==([\d.]+)", (root / ".ci" / "oldest.txt").read_text(), re.M))
    bounds = dict(re.findall(r"(keras|tensorflow)>=([\d.]+)", (root / "setup.cfg").read_text()))
    assert oldest["keras"].startswith(bounds["keras"])
    assert oldest["tensorflow"].startswith(bounds["tensorflow"])
