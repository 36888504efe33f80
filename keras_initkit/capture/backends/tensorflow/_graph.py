"""Reading a tensor of a TensorFlow graph so that the graph's optimizer still does what it would have done."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def is_inside(tensor: tf.Tensor, graph: Any) -> bool:
    """Whether a tensor belongs to a loop, a branch or a function inside the step, and cannot be read from outside.

    Nothing is added there: such a function is kept by TensorFlow and becomes part of the plain step too.
    """
    return tf.is_symbolic_tensor(tensor) and tensor.graph is not graph


# What TensorFlow's graph optimizer (remapper.cc) fuses with a bias and with an activation or sum that follows.
_FUSED_PRODUCTS = {"MatMul", "BatchMatMulV2", "Einsum", "Conv2D", "Conv3D", "DepthwiseConv2dNative"}
_FUSED_BIASES = {"BiasAdd", "AddV2"}


def unfused_copy(output: tf.Tensor) -> tf.Tensor:
    """`output` for reading: itself, or computed once more where reading it would undo a fusion.

    A product or convolution runs as one kernel with the bias and the activation after it, as long as nothing
    else reads what is between; a fused kernel rounds differently from its parts. So a linear layer's output
    is read from a second product. `PlaceholderWithDefault` keeps the optimizer from merging the two.
    """
    if not tf.is_symbolic_tensor(output):
        return output
    with_bias = output.op.type in _FUSED_BIASES
    linear = output.op.inputs[0] if with_bias else output
    if linear.op.type not in _FUSED_PRODUCTS:
        return unfused_copy_of_joined(output, unfused_copy)
    inputs = [_hidden(x) for x in linear.op.inputs]
    again = _replayed(linear.op, inputs)
    return _replayed(output.op, [again, output.op.inputs[1]]) if with_bias else again


# What reads a sum and is neither fused with it nor joined: a normalization's output mostly goes there.
_APART = {"Relu", "Conv2D", "Conv2DBackpropFilter", "MatMul", "BatchMatMulV2", "Einsum", "Mean", "SquaredDifference"}


def is_decided_later(output: tf.Tensor) -> bool:
    """Whether it takes the output's readers to know how to read it: a bare product, or a sum of no product."""
    if not tf.is_symbolic_tensor(output):
        return False
    if output.op.type == "AddV2":
        return not any(x.op.type in _FUSED_PRODUCTS | _FUSED_BIASES for x in output.op.inputs)
    return output.op.type in _FUSED_PRODUCTS


def unfused_copy_by_readers(output: tf.Tensor) -> tf.Tensor:
    """`unfused_copy` for such an output once the step is traced: itself where its readers leave it as it is.

    The mean and the squared deviations that a normalization takes of a convolution are two readers, so nothing is
    fused with it, and it is not computed twice. Nor is a sum that no other sum reads.
    """
    readers = {op.type for op in _readers(output)}
    apart = readers <= _APART if output.op.type == "AddV2" else {"Mean", "SquaredDifference"} <= readers
    return output if apart else unfused_copy(output)


def _readers(tensor: tf.Tensor) -> list[tf.Operation]:
    """What a tensor goes into, past identities."""
    found = []
    for op in tensor.consumers():
        if op.type in ("Identity", "IdentityN", "StopGradient"):
            places = [i for i, x in enumerate(op.inputs) if x is tensor]
            found += [reader for i in places for reader in _readers(op.outputs[i])]
        else:
            found.append(op)
    return found


def _is_joined(op: tf.Operation) -> bool:
    """Whether TensorFlow may join an operation with the next one, so that reading between would undo it.

    (x * 2) * 3 becomes x * 6 (constant_folding.cc), and (x + y) + z of equal shapes (x + z) + y
    (arithmetic_optimizer.cc): what rounds differently, as long as nothing else reads what is between.
    """
    constant = any(x.op.type == "Const" for x in op.inputs)
    return op.type == "AddV2" or (op.type in ("Mul", "RealDiv", "Sub") and constant)


def unfused_copy_of_joined(tensor: tf.Tensor, reader: Callable | None = None) -> tf.Tensor:
    """`tensor` for reading; computed once more where its operation may be joined with the next one."""
    if not tf.is_symbolic_tensor(tensor) or not _is_joined(tensor.op):
        return tensor

    def again(x: tf.Tensor) -> tf.Tensor:
        # With another reader of its own, `x` stays apart anyway: a residual stream ends here.
        return _hidden((reader or unfused_copy_of_joined)(x) if len(x.consumers()) == 1 else x)

    return _replayed(tensor.op, [x if x.op.type == "Const" else again(x) for x in tensor.op.inputs])


def _hidden(x: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.PlaceholderWithDefault(input=x, shape=x.shape)


def _replayed(op: tf.Operation, inputs: list[tf.Tensor]) -> tf.Tensor:
    """The output of the same operation on these inputs."""
    function = getattr(tf.raw_ops, op.type)
    accepted = inspect.signature(function).parameters
    rest, arguments = list(inputs), {}
    for argument in op.op_def.input_arg:
        if argument.number_attr:  # Einsum takes a list
            number = op.get_attr(argument.number_attr)
            arguments[argument.name], rest = rest[:number], rest[number:]
        else:
            arguments[argument.name] = rest.pop(0)
    attributes = {a.name: op.get_attr(a.name) for a in op.op_def.attr if a.name in accepted}
    return function(**arguments, **attributes)
