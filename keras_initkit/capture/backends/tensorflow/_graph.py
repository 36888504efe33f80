"""Reading a tensor of a TensorFlow graph so that the graph's optimizer still does what it would have done."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def is_inside(tensor: tf.Tensor, graph: Any) -> bool:
    """Whether a tensor belongs to a loop, a branch or a function inside the step, and cannot be read from outside.

    Nothing is added there: such a function is kept by TensorFlow and becomes part of the plain step too.
    """
    return tf.is_symbolic_tensor(tensor) and tensor.graph is not graph


def warn_of_draws(graph: tf.Graph, user: str) -> None:
    """Warns if a step draws random numbers of TensorFlow's, whose state is that of one compiled function."""
    drawing = next((op.name for op in graph.get_operations() if op.type in _DRAWS), None)
    if drawing is not None:
        warnings.warn(
            f"{user}: the step draws by tf.random ({drawing!r}), and a measured step draws other numbers "
            "than a plain one, so training will not be the same to the last bit as one that is not measured. Draw by "
            "keras.random with a keras.random.SeedGenerator.",
            stacklevel=2,
        )


# Their seed is that of the function that is compiled.
_DRAWS = {
    "RandomUniform",
    "RandomStandardNormal",
    "TruncatedNormal",
    "RandomUniformInt",
    "RandomShuffle",
    "Multinomial",
}
_DRAWS |= {"RandomGammaV2", "RandomGamma", "RandomPoissonV2", "ParameterizedTruncatedNormal"}

# TensorFlow's graph optimizer computes an operation together with the only one that reads it, which rounds otherwise
# than the two by themselves. Where a second reader comes, it leaves both alone.
#
# remapper.cc: a product runs as one kernel with a bias, an activation and a sum that follow.
_PRODUCTS = {"MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Conv3D", "DepthwiseConv2dNative"}
_SUMS = {"Add", "AddV2", "AddN"}
# constant_folding.cc: (x * y) * 3 becomes (3 * x) * y, and x / 3 the product x * (1 / 3), whatever x and y are; sums
# and differences alike. What is a constant shows only when the graph is optimized. arithmetic_optimizer.cc: (x + y) + z
# of equal shapes becomes one sum of three, and the factors of x * y * z are ordered by their shapes.
_JOINED = _SUMS | {"BiasAdd", "Sub", "Mul", "Div", "RealDiv"}
# The same and remapper.cc: functions of one number in a row, exp(x) - 1, log(x + 1), x * sigmoid(x), and other
# activations and normalizations that are written out become one operation.
_JOINED |= {"Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Digamma", "Elu", "Erf"}
_JOINED |= {"Erfc", "Exp", "Expm1", "Floor", "Inv", "LeakyRelu", "Lgamma", "Log", "Log1p", "Neg", "Reciprocal", "Relu"}
_JOINED |= {"Relu6", "Rint", "Round", "Rsqrt", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt"}
_JOINED |= {"TanhGrad", "ReluGrad", "SigmoidGrad", "EluGrad"}  # as parts of a sum, see `_is_long_sum`
_JOINED |= {"Square", "Tan", "Tanh", "Pow", "Minimum", "Maximum", "Mean", "SquaredDifference", "Cast"}
# What changes no number.
_VIEWS = {"Identity", "IdentityN", "StopGradient", "Reshape", "Squeeze", "ExpandDims", "Transpose"}
# What reads no number.
_SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike", "BroadcastGradientArgs"}
_HIDING = "PlaceholderWithDefault"  # which the optimizer does not see through
# What is computed by itself, whatever its input is made of.
_APART = {"Conv2D", "Conv2DBackpropFilter", "MatMul", "BatchMatMulV2", "Einsum", "Mean", "SquaredDifference", "Softmax"}
_APART |= {"BiasAddGrad", "ReluGrad", "TanhGrad", "SigmoidGrad", "Reshape"}
_APART |= {"SparseSoftmaxCrossEntropyWithLogits", "SoftmaxCrossEntropyWithLogits"}


def unfused_copy(tensor: tf.Tensor, is_gradient: bool = False, is_complete: bool = True) -> tf.Tensor:
    """`tensor` for reading: itself, or computed once more where reading it would undo what the optimizer does.

    Args:
        is_gradient: Boolean. Whether the tensor comes from a backward pass, whose products nothing is fused with.
        is_complete: Boolean. Whether all that reads the tensor in the plain step is there.
    """
    if not tf.is_symbolic_tensor(tensor) or _is_apart(tensor, is_gradient, is_complete):
        return tensor

    def again(x: tf.Tensor) -> tf.Tensor:
        copy = unfused_copy(x, is_gradient)
        return _hidden(x) if copy is x else copy

    op, is_view = tensor.op, _is_view(tensor.op)
    if is_view and len(op.inputs) == len(op.outputs):
        return again(op.inputs[tensor.value_index])
    # A second input of a view is a shape.
    inputs = [x if x.op.type == "Const" or (is_view and i) else again(x) for i, x in enumerate(op.inputs)]
    return _replayed(op, inputs).outputs[tensor.value_index]


def _is_apart(tensor: tf.Tensor, is_gradient: bool, is_complete: bool) -> bool:
    """Whether one more reader changes nothing in how a tensor and what reads it are computed."""
    source = _source(tensor)
    is_product = source.op.type in _PRODUCTS
    if not is_product and source.op.type not in _JOINED:
        return True
    if not is_complete:
        return is_product and is_gradient
    readers = _readers(source)
    kinds = {op.type for op in readers}
    if is_product and is_gradient:
        return len(readers) != 1 or not _is_long_sum(readers[0])
    if not is_gradient and any(x.op.type in _PRODUCTS | {"BiasAdd"} for x in (source, *map(_source, source.op.inputs))):
        # A normalization's mean and squared deviations are two readers, so nothing is fused with the product.
        return kinds <= _APART or {"Mean", "SquaredDifference"} <= kinds
    if kinds <= _APART | ({"Relu"} if source.op.type in _SUMS else set()):
        return True
    readers = [op for op in readers if _leads(op, lambda later: later.op_def.is_stateful)]  # what is kept
    sums = [_whole_sum(op) for op in readers if _is_long_sum(op)]
    if sums and all(_leads(op, lambda later: later.name == sums[0].name) for op in readers):
        return False  # it is the last reader
    # The same operation on the same tensors is done once.
    return len({(op.type, *(x.name for x in op.inputs)) for op in readers}) > 1


def _is_view(op: tf.Operation) -> bool:
    """Whether an operation changes no number, and may be taken away: not if it makes another number of dimensions."""
    if op.type != "Reshape":
        return op.type in _VIEWS
    before, after = op.inputs[0].shape.rank, op.outputs[0].shape.rank
    return before is None or before == after


def _source(tensor: tf.Tensor) -> tf.Tensor:
    """What a tensor is a view of."""
    while _is_view(tensor.op):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def _is_long_sum(op: tf.Operation) -> bool:
    """Whether an operation is, or may be made, a sum of three tensors or more.

    Its kernel begins with a tensor in whose place it can put the sum: one that nothing else reads any more.
    """
    if op.type not in _SUMS:
        return False
    # Sums are joined only where nothing else reads what is between.
    parts = [_source(x) for x in op.inputs]
    later = _readers(op.outputs[0])
    joins = any(x.op.type in _SUMS and len(_readers(x)) == 1 for x in parts)
    return len(parts) > 2 or joins or (len(later) == 1 and later[0].type in _SUMS)


def _whole_sum(op: tf.Operation) -> tf.Operation:
    """The last of the sums that one is joined with."""
    later = _readers(op.outputs[0])
    return _whole_sum(later[0]) if len(later) == 1 and later[0].type in _SUMS else op


def _readers(tensor: tf.Tensor) -> list[tf.Operation]:
    """What a tensor goes into, past views."""
    found = []
    for op in tensor.consumers():
        if _is_view(op):
            places = [i for i, x in enumerate(op.inputs) if x is tensor and i < len(op.outputs)]
            found += [reader for i in places for reader in _readers(op.outputs[i])]
        elif op.type not in _SHAPES and op.type != _HIDING:
            found.append(op)
    return found


def _leads(op: tf.Operation, to: Callable[[tf.Operation], bool]) -> bool:
    """Whether an operation is one that is looked for, or such a one follows from it.

    What nothing with an effect follows from is taken away before anything is joined.
    """
    waiting, seen = [op], {op.name}
    while waiting:
        op = waiting.pop()
        if to(op):
            return True
        later = {reader.name: reader for x in op.outputs for reader in x.consumers()}
        waiting += [reader for name, reader in later.items() if name not in seen]
        seen |= set(later)
    return False


def _hidden(x: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.PlaceholderWithDefault(input=x, shape=x.shape)


def _replayed(op: tf.Operation, inputs: list[tf.Tensor]) -> tf.Operation:
    """The same operation on these inputs."""
    attributes = {name: value for name, value in op.node_def.attr.items() if not name.startswith("_")}
    return op.graph.create_op(op.type, inputs, [x.dtype for x in op.outputs], attrs=attributes)
