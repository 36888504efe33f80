"""Rules for layers that rearrange, repeat, leave out or average positions.

They follow from a unit's autocorrelation over positions (`Signal.within_example`, `Signal.between_examples`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from keras_initkit.prediction.algebra._autocorrelation import Autocorrelation
from keras_initkit.prediction.algebra._geometry import window_counts, window_offsets
from keras_initkit.prediction.algebra._laws import law_of_kinds
from keras_initkit.prediction.algebra._layout import standardize
from keras_initkit.prediction.algebra._signals import Gradient, LayerPropagation, Signal, UnpredictableError
from keras_initkit.prediction.operation_rules._elementwise import needed
from keras_initkit.prediction.operation_rules._linear import per_axis
from keras_initkit.prediction.operation_rules._rule_table import rule


def without_function(signal: Signal, **changes) -> Signal:
    """Changes a signal that is no longer a function of a Gaussian one."""
    return replace(signal, **{"argument": None, "function": None, "profile": (), "spread": None, **changes})


def _white(gradient: Gradient, layer: str) -> None:
    if not gradient.white:
        raise UnpredictableError(f"its {layer} add up gradients that are correlated between neighboring positions")


@rule("AveragePooling1D", "AveragePooling2D", "AveragePooling3D")
def average_pooling(call, inputs):
    """E[y^2] is the mean of E[x_a x_b] over all pairs in a window; padding is not counted, so edges average less."""
    layer, x = call.layer, inputs[0].with_margin()
    axes = len(x.size)
    window, strides = per_axis(layer.pool_size, axes), per_axis(layer.strides, axes)
    if x.within_example is None:
        raise UnpredictableError("the correlation between neighboring positions is not known")
    offsets = window_offsets(x.size, window, strides, (1,) * axes, layer.padding)
    kinds = [(share, x.within_example.windowed(sizes, sizes).zero)
             for sizes, share in window_sizes(x, window, strides, layer.padding)]  # fmt: skip
    second = sum(share * each for share, each in kinds)
    lags = x.map_autocorrelations(lambda values: values.windowed(window, strides))
    lags["within_example"].near[lags["within_example"].reach] = second
    edged = any(count != k for sizes, _ in window_sizes(x, window, strides, layer.padding)
                for count, k in zip(sizes, window, strict=True))  # fmt: skip
    # Neighbours are nearly as strong as each other, so that a window's mean is as strong as its elements.
    even = layer.padding != "valid"
    profile = () if even else window_offsets(x.size, window, strides, (1,) * axes, "valid", (), x.profile).profile
    output = without_function(
        x,
        second_moment=second,
        law=_law_of_means(inputs[0], window, strides, layer.padding),
        size=offsets.size,
        **lags,
        identically_distributed=x.identically_distributed and not edged,
        edges=x.edges or (edged and x.identically_distributed),
        profile=profile,
    )
    apart = all(s >= k for s, k in zip(strides, window, strict=True))

    def backward(gradient: Gradient) -> list[Gradient]:
        if not apart:
            _white(gradient, "overlapping windows")
        # An edge window of n inputs gives each of them 1/n of its gradient.
        back = sum(share / math.prod(sizes) for sizes, share in window_sizes(x, window, strides, layer.padding))
        outputs_per_input = offsets.per_input / offsets.per_output
        return [gradient.scaled(back * outputs_per_input, white=math.prod(window) == 1)]

    return LayerPropagation(output, backward)


def _law_of_means(x: Signal, window, strides, padding) -> np.ndarray | None:
    """Returns the law of means of Gaussian elements over windows, which differ near a border."""
    if not (x.gaussian and x.identically_distributed) or x.within_example is None:
        return None
    kinds = []
    for sizes, share in window_sizes(x, window, strides, padding):
        zeros = math.prod(n / k for n, k in zip(sizes, window, strict=True)) if any(map(any, x.margin)) else 1.0
        kinds.append((share, zeros**2 * x.within_example.windowed(sizes, sizes).zero if math.prod(sizes) else 0.0))
    return law_of_kinds(kinds, x.mean)


def window_sizes(x: Signal, window, strides, padding) -> list[tuple[tuple[int, ...], float]]:
    """Returns the sizes that windows have inside the input, each with its fraction of all windows."""
    kinds: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    for axis, (n, k, s) in enumerate(zip(x.size, window, strides, strict=True)):
        margin = x.margin[axis] if x.margin else (0, 0)
        inside = [k] if n is None else window_counts(n, k, s, 1, padding, margin)[0]
        shares = {count: inside.count(count) / len(inside) for count in sorted(set(inside))}
        kinds = [((*sizes, count), share * more) for sizes, share in kinds for count, more in shares.items()]
    return kinds


@rule("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")
def global_average_pooling(call, inputs):
    """Averages over all positions."""
    x, axes = inputs[0].with_margin(), len(call.outputs[0].shape) - 2
    if x.within_example is None or None in x.size:
        raise UnpredictableError("the correlation between positions is not known, or their number")
    second, positions = x.within_example.mean(x.size), math.prod(x.size)
    other = (
        None
        if x.between_examples is None
        else Autocorrelation.white(x.between_examples.mean(x.size), x.between_examples.mean(x.size), axes)
    )
    output = without_function(
        x,
        second_moment=second,
        law=None,
        size=(1,) * axes,
        within_example=Autocorrelation.white(second, second, axes),
        between_examples=other,
    )
    back = 1 / positions**2
    return LayerPropagation(output, lambda g: [g.scaled(back, white=positions == 1, common=g.second_moment * back)])


@rule("UpSampling1D", "UpSampling2D", "UpSampling3D")
def upsampling(call, inputs):
    """Copies elements; the gradients of the copies add up."""
    layer, x = call.layer, inputs[0].with_margin()
    if getattr(layer, "interpolation", "nearest") != "nearest":
        raise UnpredictableError(f"it interpolates ({layer.interpolation}); only nearest is predicted")
    sizes = per_axis(layer.size, len(x.size))
    size = tuple(None if n is None else n * copies for n, copies in zip(x.size, sizes, strict=True))
    output = without_function(x, size=size, **x.map_autocorrelations(lambda lags: lags.repeated(sizes)))

    def backward(gradient: Gradient) -> list[Gradient]:
        _white(gradient, "copies")
        return [gradient.scaled(math.prod(sizes))]

    return LayerPropagation(output, backward)


@rule("RepeatVector")
def repeat_vector(call, inputs):
    """Makes n equal positions."""
    x, n = inputs[0].with_margin(), call.layer.n
    lags = x.map_autocorrelations(lambda lags: Autocorrelation.white(lags.zero, lags.zero, 1))

    def backward(gradient: Gradient) -> list[Gradient]:
        _white(gradient, "copies")
        return [gradient.scaled(n)]

    return LayerPropagation(without_function(x, size=(n,), **lags), backward)


@rule("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def zero_padding(call, inputs):
    """Adds zeros around; the next layer counts them itself (`Signal.margin`)."""
    added = call.layer.padding
    return _padded(inputs[0], [added] if isinstance(added[0], int) else added)


@rule(operations="Pad")
def padding(call, inputs):
    """Adds zeros around."""
    x, rank = needed(inputs[0]), len(call.inputs[0].shape)
    added = [tuple(each) for each in call.layer.pad_width] * (rank if len(call.layer.pad_width) == 1 else 1)
    number = call.kwargs.get("constant_values", call.args[1] if len(call.args) > 1 else None)
    if call.layer.mode != "constant" or number not in (None, 0) or any(added[0]) or any(added[-1]):
        raise UnpredictableError("it adds examples or units, or something other than zeros")
    return _padded(standardize(x, call.inputs[0].shape), added[1:-1])


def _padded(x: Signal, added: Sequence[tuple[int, int]]) -> LayerPropagation:
    before = x.margin or ((0, 0),) * len(x.size)
    margin = tuple((a + c, b + d) for (a, b), (c, d) in zip(before, added, strict=True))
    if any(n is None for n in x.size) and any(map(any, margin)):
        raise UnpredictableError("its number of positions is not fixed, so the fraction of zeros is not known")
    return LayerPropagation(replace(x, margin=margin), lambda gradient: [gradient])


@rule("Cropping1D", "Cropping2D", "Cropping3D")
def cropping(call, inputs):
    """Drops positions; the dropped ones have no gradient."""
    x, cut = inputs[0].with_margin(), call.layer.cropping
    cut = [cut] if isinstance(cut[0], int) else cut
    size = tuple(None if n is None else n - sum(pair) for n, pair in zip(x.size, cut, strict=True))
    kept = math.prod(1.0 if n is None or m is None else m / n for n, m in zip(x.size, size, strict=True))
    return LayerPropagation(replace(x, size=size, profile=()), lambda gradient: [gradient.scaled(kept)])
