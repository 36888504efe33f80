"""Imports run the ways that the house is drawn: no circle, no arrow upwards, type-only and late imports included."""

import ast
import graphlib
import pathlib
import re

import pytest

import keras_initkit

PACKAGE = pathlib.Path(keras_initkit.__file__).parent
CONTRIBUTING = pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md"
ROOT_MODULES = {"_arrays", "_checks", "_compat", "_html", "_random_state", "_threads", "_version"}  # below every folder
FACES = {"keras_initkit", "keras_initkit.signal"}  # re-export what the folders have


def modules():
    """Every module of the package by its dotted name."""
    found = {}
    for directory in (PACKAGE, PACKAGE / "callbacks", PACKAGE / "examples"):  # the last two may be links
        for path in directory.rglob("*.py"):
            parts = ["keras_initkit", *path.relative_to(PACKAGE).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name, path, known):
    """The modules of the package that a module imports anywhere in its text."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import in line {node.lineno}"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else node.module)
    return {each for each in found if each in known and each != name}


@pytest.fixture(scope="module")
def graph():
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items()}


def folder(name):
    return name.split(".")[1] if "." in name else ""


def test_no_circle(graph):
    assert len(graph) > 100
    try:
        order = list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(reversed(error.args[1]))}")
    assert set(order) == set(graph)


@pytest.mark.skipif(not CONTRIBUTING.exists(), reason="not in a checkout")
def test_folders_import_what_the_drawing_lets_them(graph):
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", CONTRIBUTING.read_text(encoding="utf-8"), re.M)
    allowed = {name: set(re.findall(r"\w+", may)) for name, may in rows}
    folders = {folder(name) for name in graph if folder(name) and not folder(name).startswith("_")} - {"signal"}
    assert set(allowed) == folders
    wrong = {
        f"{name} -> {imported}"
        for name, several in graph.items()
        for imported in several
        if name not in FACES
        and folder(name) not in ROOT_MODULES
        and folder(imported) not in ROOT_MODULES | {"", folder(name)} | allowed.get(folder(name), set())
    }
    assert not wrong, "\n".join(sorted(wrong))
    upwards = {f"{name} -> {each}" for name in graph if folder(name) in ROOT_MODULES for each in graph[name]}
    assert not {edge for edge in upwards if folder(edge.split(" -> ")[1]) not in ROOT_MODULES}
    # Nothing inside uses the faces, but scripts that are written as users write.
    inside = {name for name, several in graph.items() if several & FACES and name not in FACES}
    assert {folder(name) for name in inside} <= {"examples", "cli"}, inside


def test_the_drawing_has_no_circle_itself():
    if not CONTRIBUTING.exists():
        pytest.skip("not in a checkout")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", CONTRIBUTING.read_text(encoding="utf-8"), re.M)
    graphlib.TopologicalSorter({name: re.findall(r"\w+", may) for name, may in rows}).prepare()


def test_no_file_name_stands_in_two_folders():
    names = {}
    for name in modules():
        leaf = name.rpartition(".")[2]
        if "." in name and not re.search(r"\.backends\.(tensorflow|jax|torch)\.", name):
            names.setdefault(leaf, []).append(name)
    assert not {leaf: several for leaf, several in names.items() if len(several) > 1}


def test_no_function_shadows_its_own_module():
    for name, path in modules().items():
        leaf = name.rpartition(".")[2]
        defined = {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")}
        assert leaf not in defined, f"{name} defines {leaf}"
