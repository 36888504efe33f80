"""The rule for kernels with nothing between them that bends."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import keras

from keras_initkit.diagnosis._evidence import Evidence
from keras_initkit.diagnosis._finding import Finding
from keras_initkit.diagnosis._rule_registry import register_rule
from keras_initkit.diagnosis.context._kernel_context import KernelContext
from keras_initkit.diagnosis.context._model_context import ModelContext
from keras_initkit.diagnosis.task._task import Task
from keras_initkit.diagnosis.task._task_remedies import layer_code, write_remedy
from keras_initkit.structure._graph import Call, Tensor, leaves, readers, signals
from keras_initkit.structure._kernel import as_tuple
from keras_initkit.structure._layer_kinds import is_activation, is_normalization, moves, shifts_or_scales

_LINEAR = re.compile(
    "(Global)?AveragePooling[123]D|(ZeroPadding|Cropping|UpSampling)[123]D|(Gaussian|Spatial)?Dropout([123]D)?|"
    "BatchNormalization|Flatten|GaussianNoise|Identity|Permute|RepeatVector|Rescaling|Reshape"
)


@register_rule("linear_stack")
def find_linear_stack(evidence: Evidence) -> Iterator[Finding]:
    """Finds kernels with nothing between them that bends: together they are one linear function.

    Between the two come only dropouts, averages, reshapes, biases and batch normalizations, which at inference are
    straight lines, and nothing else reads the first one's output. Factorizations are left out: a width between the two
    that is smaller than both sides (a bottleneck, LoRA, a linear auto-encoder), depthwise and grouped kernels,
    convolutions along different axes, embeddings, recurrent kernels and attention's projections. A warning where no
    kernel of the model has anything behind it that bends; information where others have, and for a regression, which
    may be linear on purpose.
    """
    task = evidence.task
    if task is None or not task.model.graph:
        return
    if "linear_stack" not in task.known:
        task.known["linear_stack"] = _find_pairs(task.model)
    pairs, is_linear = task.known["linear_stack"]
    regression = all(each.loss is not None and each.loss.kind == "regression" for each in task.outputs)
    for first, second in pairs:
        yield Finding(
            "linear_stack",
            first.path,
            evidence.reports[0].step,
            "warning" if is_linear and not regression else "info",
            {"units": first.units, "healthy": "an activation between two kernels"},
            _remedy(task, first),
            message=f"Nothing between {first.path} and {second.path} bends: together they are one linear function, as "
            + ("is the whole model, which a single layer could replace." if is_linear else f"{second.path} alone is."),
        )


def _remedy(task: Task, first: KernelContext) -> str:
    layer = first.kernel.layer
    sentence = "Give the first one an activation (and compile the model again)"
    if callable(getattr(layer, "activation", None)):
        model = task.model.model
        again = "model.compile(model.optimizer, model.loss)" if getattr(model, "optimizer", None) else ""
        return write_remedy(sentence, f"{layer_code(model, first.path)}.activation = keras.activations.relu", again)
    return write_remedy(sentence)


def _find_pairs(model: ModelContext) -> tuple[list[tuple[KernelContext, KernelContext]], bool]:
    """Returns the pairs, and whether no kernel of the model has anything that bends behind it."""
    by_path: dict[str, list[KernelContext]] = {}
    for context in model.kernels:
        by_path.setdefault(context.path, []).append(context)
    single = {path: held[0] for path, held in by_path.items() if len(held) == 1}
    leaf_calls, read_by = leaves(model.graph), readers(model.graph)
    moving, outputs = signals(model.graph), set(model.graph[-1].outputs)
    pairs = []
    for call in leaf_calls:
        first = single.get(call.path)
        if first is None or not _is_plain(first) or model.is_nonlinear(call.path):
            continue
        second = _next_kernel(call, read_by, moving, outputs, single)
        if second is not None and _is_plain(second) and not _is_factorization(first, second):
            pairs.append((first, second))
    unique = list({one.path: (one, other) for one, other in pairs}.values())
    hidden = [context for context in model.kernels if not context.is_output]
    stacked = {one.path for one, _ in unique}
    return unique, bool(unique) and all(each.path in stacked for each in hidden) and not _bends_somewhere(
        leaf_calls, moving
    )


def _next_kernel(
    call: Call,
    readers: dict[Tensor, list[Call]],
    moving: set[Tensor],
    outputs: set[Tensor],
    single: dict[str, KernelContext],
) -> KernelContext | None:
    """Returns the kernel that alone reads what a call puts out, through what is linear by elements."""
    tensor = call.outputs[0]
    while tensor not in outputs:
        following = readers.get(tensor, [])
        if len(following) != 1:
            return None
        (reader,) = following
        if reader.path in single and not is_normalization(reader.layer):
            return single[reader.path]
        if not _is_linear(reader, moving):
            return None
        tensor = reader.outputs[0]
    return None


def _is_linear(call: Call, moving: set[Tensor]) -> bool:
    """Whether a call is linear in the one signal that it reads."""
    if sum(tensor in moving for tensor in call.inputs) != 1 or call.role:
        return False
    if isinstance(call.layer, keras.Layer):
        return _LINEAR.fullmatch(type(call.layer).__name__) is not None and not is_activation(call.layer)
    return moves(call.layer) or shifts_or_scales(call.layer)


def _bends_somewhere(leaves: list[Call], moving: set[Tensor]) -> bool:
    """Whether the model has a call that is neither linear nor a kernel, before its head."""
    last = leaves[-1] if leaves else None
    for call in leaves:
        if call is last or not moving.intersection(call.inputs) or _is_linear(call, moving):
            continue
        name = type(call.layer).__name__
        if name in ("Softmax", "Sigmoid") or is_activation(call.layer):
            continue  # of the head: a hidden one would have parted the kernels before it
        if not (isinstance(call.layer, keras.Layer) and call.layer.built and call.layer.weights):
            return True
    return False


def _is_plain(context: KernelContext) -> bool:
    """Whether a kernel sums over all that it reads, in a layer that is no attention."""
    kernel = context.kernel
    return kernel.role in ("dense", "conv", "conv_transpose") and not (
        context.in_branch or kernel.gates or kernel.batch_axes or kernel.tied
    )


def _is_factorization(first: KernelContext, second: KernelContext) -> bool:
    """Whether two kernels are meant to be one of lower rank, or one along each axis."""
    between = first.units
    before = math.prod(first.kernel.shape[axis] for axis in as_tuple(first.kernel.in_axes))
    after = second.units
    if between < before and between < after:
        return True
    fields = [_field(each) for each in (first, second)]
    return len(fields[0]) == len(fields[1]) > 1 and all(1 in pair for pair in zip(*fields, strict=True))


def _field(context: KernelContext) -> tuple[int, ...]:
    """Returns the receptive field of a convolution."""
    kernel = context.kernel
    taken = {*as_tuple(kernel.in_axes), *as_tuple(kernel.out_axes), *as_tuple(kernel.batch_axes)}
    return tuple(size for axis, size in enumerate(kernel.shape) if axis not in taken)
