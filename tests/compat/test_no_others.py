"""No file of the package but those of `_compat` uses a private name of a framework."""

import ast
import pathlib
import re

import keras
import pytest

import keras_initkit

pytestmark = pytest.mark.one_backend
PACKAGE = pathlib.Path(keras_initkit.__file__).parent
FRAMEWORKS = {"keras", "tensorflow", "jax", "jaxlib", "torch"}
# Where a framework keeps what nobody promises, beside names that begin with `_`.
INNER = re.compile(r"(keras\.src|tensorflow\.python|tensorflow\.core|tensorflow\.compiler|(\w+\.)+_(?!_)\w)")
OF_NAMED_TUPLES = {"_asdict", "_fields", "_replace"}


def is_private(name):
    return re.match("_[^_]", name) is not None


def sources():
    """Every module of the package outside `_compat`, by its path."""
    found = {}
    for directory in (PACKAGE, PACKAGE / "callbacks", PACKAGE / "examples"):  # the last two may be links
        for path in directory.rglob("*.py"):
            if "_compat" not in path.relative_to(PACKAGE).parts:
                found[str(path.relative_to(PACKAGE))] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def own_names(trees):
    """What the package itself calls so: classes, functions, fields, and what is set on `self`."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
                yield node.attr
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                yield from (each.id for each in targets if isinstance(each, ast.Name))


def is_own(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_attributes():
    """Private names of live objects of Keras and of the framework below."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    functional, seeds = keras.Model(model.inputs, model.outputs), keras.random.SeedGenerator(1)
    objects = [model, functional, keras.layers.Layer(), model.optimizer, model.weights[0], model.inputs[0], seeds]
    objects += [keras.ops.ones(()), keras.losses.MeanSquaredError(), keras.metrics.Mean(), keras.callbacks.Callback()]
    found = {name for each in objects for name in dir(each) if is_private(name)}
    assert {"_layers", "_inbound_nodes", "_functional", "_compile_loss", "_trainable_variables"} <= found
    return found | {"_keras_mask", "_keras_logits", "_keras_history", "_trace", "_clone", "_torchdynamo_orig_callable"}


def is_inner(dotted):
    return dotted.partition(".")[0] in FRAMEWORKS and INNER.match(dotted) is not None


def violations(path, tree, own, private):
    """Yields each use of a private name of a framework in a module, with its line."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
                if is_inner(whole):
                    yield f"{path}:{node.lineno}: {whole}"
                if alias.asname or isinstance(node, ast.ImportFrom):
                    aliases[alias.asname or alias.name] = whole

    def is_name(value):
        """Whether a constant is the name of a private attribute or module."""
        return isinstance(value, str) and (value in private - own or is_inner(value))

    in_text = {id(each) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for each in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            unknown = is_private(node.attr) and node.attr not in own | OF_NAMED_TUPLES
            if unknown or (node.attr in private and not is_own(node.value)):
                yield f"{path}:{node.lineno}: {ast.unparse(node)}"
            elif is_inner(f"{aliases.get(first, first)}.{rest}"):
                yield f"{path}:{node.lineno}: {aliases.get(first, first)}.{rest}"
        elif isinstance(node, ast.Constant) and id(node) not in in_text and is_name(node.value):
            yield f"{path}:{node.lineno}: {node.value!r}"


@pytest.fixture(scope="module")
def names():
    trees = sources()
    assert len(trees) > 100
    return trees, set(own_names(trees.values())), private_attributes()


def test_no_other_file_uses_a_private_name(names):
    trees, own, private = names
    found = [each for path, tree in trees.items() for each in violations(path, tree, own, private)]
    # A `StepMeter`, which calls its own layers as Keras' layers call theirs.
    assert [each for each in found if not each.endswith(" meter._layers")] == []


@pytest.mark.parametrize(
    ("code", "used"),
    [
        ("import keras.src.backend", "keras.src.backend"),
        ("from keras import src", "keras.src"),
        ("from keras.src.ops import core", "keras.src.ops.core"),
        ("def f():\n    from tensorflow.python.eager import context", "tensorflow.python.eager.context"),
        ("import jax._src.core", "jax._src.core"),
        ("from torch import _C", "torch._C"),
        ("import keras as k\nk.src.ops.core.Add", "keras.src.ops.core.Add"),
        ("import tensorflow as tf\ntf.python.eager", "tensorflow.python.eager"),
        ("from torch import nn\nnn.Module._call_impl", "nn.Module._call_impl"),
        ("import torch\ntorch._C.f()", "torch._C"),
        ("layer._inbound_nodes", "layer._inbound_nodes"),
        ("def f(model): model.layers[0]._functional = None", "model.layers[0]._functional"),
        ("getattr(x, '_keras_mask', None)", "'_keras_mask'"),
        ("layer._layers", "layer._layers"),
        ("class A(keras.Layer):\n    def f(self): self._dtype_policy_of_keras", "self._dtype_policy_of_keras"),
        ("importlib.import_module('keras.src.ops')", "'keras.src.ops'"),
    ],
)
def test_private_names_are_found(names, code, used):
    _, own, private = names
    assert {each.partition(": ")[2] for each in violations("a.py", ast.parse(code), own, private)} >= {used}


@pytest.mark.parametrize(
    "code",
    [
        "import keras\nkeras.layers.Dense(2).kernel.__class__",
        "from keras import ops as _ops\n_ops.sum(x)",
        "import tensorflow as tf\ntf.raw_ops.MatMul",
        "row.tap._replace(kind='a')",
        "self._layers = {}\nself._layers",
        "print('see keras')",
    ],
)
def test_public_names_pass(names, code):
    _, own, private = names
    assert list(violations("a.py", ast.parse(code), own, private)) == []
