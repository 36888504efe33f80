"""What is shipped: the wheel, the source distribution, and a wheel made of that."""

import configparser
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LINKED = ("callbacks", "examples")  # stand at top level, and are linked into the package

pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.cfg").exists() or not (ROOT / "callbacks").exists(), reason="no checkout"),
]


def expected():
    """Every file of the package in the checkout, as it is to stand in the wheel."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("keras_initkit", "keras_initkit_tensorboard")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.relative_to(ROOT).parts[1] not in LINKED
    }
    found.add("keras_initkit_cli.py")  # the command, which parses before the package imports Keras
    return found | {f"keras_initkit/{folder}/{path.name}" for folder in LINKED for path in (ROOT / folder).glob("*.py")}


def build(source, out, kind):
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


def files_of(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if ".dist-info/" not in name and not name.endswith("/")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy, for building leaves files behind."""
    copy = tmp_path_factory.mktemp("checkout") / "source"
    ignored = shutil.ignore_patterns(".git", "__pycache__", "build", "*.egg-info", "_build", "logs", ".*_cache")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    return copy


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(checkout, tmp_path):
    wheel = build(checkout, tmp_path, "wheel")
    assert files_of(wheel) == expected()
    with zipfile.ZipFile(wheel) as files:
        (name,) = [name for name in files.namelist() if name.endswith("/entry_points.txt")]
        points = configparser.ConfigParser()
        points.read_string(files.read(name).decode())
    # TensorBoard finds its tab, and the shell the command.
    assert dict(points["tensorboard_plugins"]) == {"keras_initkit": "keras_initkit_tensorboard:LayersPlugin"}
    assert dict(points["console_scripts"]) == {"keras-initkit": "keras_initkit_cli:main"}


def test_the_source_distribution_has_real_files_and_makes_the_same_wheel(checkout, tmp_path):
    archive = build(checkout, tmp_path / "sdist", "sdist")
    with tarfile.open(archive) as files:
        members = {member.name.partition("/")[2]: member for member in files.getmembers()}
        assert not [name for name, member in members.items() if member.issym() or member.islnk()]
        assert expected() <= {name for name, member in members.items() if member.isfile()}
        files.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert files_of(build(source, tmp_path / "wheel", "wheel")) == expected()
