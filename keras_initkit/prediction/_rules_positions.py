"""Layers that rearrange, repeat, leave out or average positions.

Their numbers follow from how alike the elements of a unit are at two positions (`Signal.same`, `Signal.other`).
"""

from __future__ import annotations

import math
from dataclasses import replace

from keras_initkit.prediction._autocorrelation import Lags
from keras_initkit.prediction._geometry import window_counts, window_taps
from keras_initkit.prediction._rules import rule
from keras_initkit.prediction._rules_kernels import each
from keras_initkit.prediction._signals import Gradient, Passage, Signal, UnpredictableError


def plain(signal: Signal, **changes) -> Signal:
    """A signal that is no longer a function of a Gaussian one."""
    return replace(signal, **{"source": None, "function": None, "profile": (), **changes})


def _white(gradient: Gradient, layer: str) -> None:
    if not gradient.white:
        raise UnpredictableError(f"gradients that are alike at neighbouring positions come back through its {layer}")


@rule("AveragePooling1D", "AveragePooling2D", "AveragePooling3D")
def average_pooling(call, inputs):
    """E[y^2] is the mean of E[x_a x_b] over all pairs in a window. Padding is not counted, so edges average less."""
    layer, x = call.layer, inputs[0].settled()
    axes = len(x.size)
    window, strides = each(layer.pool_size, axes), each(layer.strides, axes)
    if x.same is None:
        raise UnpredictableError("how alike neighbouring positions are is not known")
    taps = window_taps(x.size, window, strides, (1,) * axes, layer.padding)
    second = 0.0
    for sizes, share in window_sizes(x, window, strides, layer.padding):
        second += share * x.same.windowed(sizes, sizes).zero
    lags = x.map_lags(lambda values: values.windowed(window, strides))
    lags["same"].near[lags["same"].reach] = second
    edged = any(count != k for sizes, _ in window_sizes(x, window, strides, layer.padding)
                for count, k in zip(sizes, window, strict=True))  # fmt: skip
    # Neighbours are nearly as strong as each other, so that a window's mean is as strong as its elements.
    means = window_taps(x.size, window, strides, (1,) * axes, "valid", (), x.profile).profile
    profile = means if layer.padding == "valid" else ()
    output = plain(x, second=second, size=taps.size, **lags, alike=x.alike and not edged, profile=profile)
    apart = all(s >= k for s, k in zip(strides, window, strict=True))

    def backward(gradient: Gradient) -> list[Gradient]:
        if not apart:
            _white(gradient, "overlapping windows")
        # An edge window of n inputs gives each of them 1/n of its gradient.
        back = sum(share / math.prod(sizes) for sizes, share in window_sizes(x, window, strides, layer.padding))
        outputs_per_input = taps.per_input / taps.per_output
        return [gradient.scaled(back * outputs_per_input, white=math.prod(window) == 1)]

    return Passage(output, backward)


def window_sizes(x: Signal, window, strides, padding) -> list[tuple[tuple[int, ...], float]]:
    """The sizes that windows have inside the input, each with its share of all windows."""
    kinds: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    for n, k, s in zip(x.size, window, strides, strict=True):
        inside = [k] if n is None else window_counts(n, k, s, 1, padding)[0]
        shares = {count: inside.count(count) / len(inside) for count in sorted(set(inside))}
        kinds = [((*sizes, count), share * more) for sizes, share in kinds for count, more in shares.items()]
    return kinds


@rule("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")
def global_average_pooling(call, inputs):
    """One window over all positions."""
    x, axes = inputs[0].settled(), len(call.outputs[0].shape) - 2
    if x.same is None or None in x.size:
        raise UnpredictableError("how alike neighbouring positions are is not known, or the number of positions")
    second, positions = x.same.mean(x.size), math.prod(x.size)
    other = None if x.other is None else Lags.white(x.other.mean(x.size), x.other.mean(x.size), axes)
    output = plain(x, second=second, size=(1,) * axes, same=Lags.white(second, second, axes), other=other)
    return Passage(output, lambda g: [g.scaled(1 / positions**2, white=positions == 1)])


@rule("UpSampling1D", "UpSampling2D", "UpSampling3D")
def upsampling(call, inputs):
    """Copies; the gradients of the copies add up."""
    layer, x = call.layer, inputs[0].settled()
    if getattr(layer, "interpolation", "nearest") != "nearest":
        raise UnpredictableError(f"it interpolates ({layer.interpolation}); only nearest is predicted")
    sizes = each(layer.size, len(x.size))
    size = tuple(None if n is None else n * copies for n, copies in zip(x.size, sizes, strict=True))
    output = plain(x, size=size, **x.map_lags(lambda lags: lags.repeated(sizes)))

    def backward(gradient: Gradient) -> list[Gradient]:
        _white(gradient, "copies")
        return [gradient.scaled(math.prod(sizes))]

    return Passage(output, backward)


@rule("RepeatVector")
def repeat_vector(call, inputs):
    """n equal positions."""
    x, n = inputs[0].settled(), call.layer.n
    lags = x.map_lags(lambda lags: Lags.white(lags.zero, lags.zero, 1))

    def backward(gradient: Gradient) -> list[Gradient]:
        _white(gradient, "copies")
        return [gradient.scaled(n)]

    return Passage(plain(x, size=(n,), **lags), backward)


@rule("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def zero_padding(call, inputs):
    """Zeros around; what reads them counts them by itself (`Signal.margin`)."""
    x = inputs[0]
    added = call.layer.padding
    added = [added] if isinstance(added[0], int) else added
    before = x.margin or ((0, 0),) * len(x.size)
    margin = tuple((a + c, b + d) for (a, b), (c, d) in zip(before, added, strict=True))
    if any(n is None for n in x.size) and any(map(any, margin)):
        raise UnpredictableError("its positions have no fixed number, so the share of zeros is not known")
    return Passage(replace(x, margin=margin), lambda gradient: [gradient])


@rule("Cropping1D", "Cropping2D", "Cropping3D")
def cropping(call, inputs):
    """Fewer positions; those left out have no gradient."""
    x, cut = inputs[0].settled(), call.layer.cropping
    cut = [cut] if isinstance(cut[0], int) else cut
    size = tuple(None if n is None else n - sum(pair) for n, pair in zip(x.size, cut, strict=True))
    kept = math.prod(1.0 if n is None or m is None else m / n for n, m in zip(x.size, size, strict=True))
    return Passage(replace(x, size=size, profile=()), lambda gradient: [gradient.scaled(kept)])


@rule("Flatten")
def flatten(call, inputs):
    """Positions become units."""
    x = inputs[0].settled()
    lags = {"same": Lags.white(x.second, x.second, 0), "other": None}
    if x.other is not None:
        lags["other"] = Lags.white(x.other.zero, x.other.zero, 0)
    return Passage(plain(x, size=(), **lags), lambda gradient: [gradient])


@rule("Reshape", "Permute")
def rearrange(call, inputs):
    """The same elements; which lags they have now is known only where all lags are alike."""
    x = inputs[0].settled()
    before, after = call.inputs[0].shape, call.outputs[0].shape
    size = after[1:-1]
    kept = before[-1] == after[-1] and None not in (*x.size, *size)
    kept = kept and (type(call.layer).__name__ == "Reshape" or call.layer.dims[-1] == len(before) - 1)
    lags: dict[str, Lags | None] = {"same": None, "other": None}
    if not size:
        return flatten(call, inputs)
    for name, values in (("same", x.same), ("other", x.other)):
        if values is None:
            continue
        constant = values.flat and (kept or (name == "other" and values.zero == values.far.flat[0]))
        independent_units = values.flat and values.far.size and abs(float(values.far.flat[0]) - x.mean**2) <= 1e-9
        if constant or (independent_units and name == "same"):
            lags[name] = Lags.white(values.zero, float(values.far.flat[0]) if values.axes else x.mean**2, len(size))
        elif not values.axes:  # units become positions, and units are independent given the mean
            lags[name] = Lags.white(values.zero, x.mean**2, len(size))
    return Passage(plain(x, size=size, **lags), lambda gradient: [gradient])
