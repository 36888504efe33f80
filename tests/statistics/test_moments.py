"""Moments against NumPy in float64."""

import itertools

import keras
import numpy as np
import pytest

from keras_initkit.statistics._device import reduce_blocks
from keras_initkit.statistics._moments import Moments
from keras_initkit.statistics._sampling import take_blocks

RNG = np.random.default_rng(0)
TENSORS = {
    "normal": RNG.standard_normal((64, 128)),
    "large mean": 1e4 + RNG.standard_normal((64, 129)),
    "tiny": 1e-25 * RNG.standard_normal((300, 7)),
    "huge": 1e30 * RNG.standard_normal((300, 7)),
    "relu": np.maximum(RNG.standard_normal((32, 5, 6, 8)), 0),
    "heavy tails": RNG.standard_cauchy((50, 50)),
    "mean near zero": RNG.standard_normal((1000, 300)),
    "vector": RNG.standard_normal(100_000),
    "one": np.array([3.0]),
    "scalar": np.array(-2.5),
    "zeros": np.zeros((4, 5)),
}
SINGLE = keras.backend.backend() == "jax"  # no float64 unless asked for


def on_device(tensor):
    """Moments of a tensor as a measured step takes them; a step counts elements that are not finite elsewhere."""
    columns = reduce_blocks([(0, take_blocks(tensor, None))], 1, together=False)
    row = [float(keras.ops.convert_to_numpy(column)[0]) for column in columns._replace(nonfinite=columns.zeros)]
    return Moments.from_row([*row[:-1], 0])


def naive(x):
    x = np.asarray(x, "float64")
    return {
        "count": x.size,
        "mean": x.mean(),
        "variance": x.var(),
        "minimum": x.min(),
        "maximum": x.max(),
        "zeros": (x == 0).sum(),
        "nonfinite": (~np.isfinite(x)).sum(),
    }


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", TENSORS)
def test_on_the_device(name, dtype):
    tensor = keras.ops.cast(keras.ops.convert_to_tensor(TENSORS[name].astype("float32")), dtype)
    seen = keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")).astype("float64")
    if not np.isfinite(seen).all():
        pytest.skip(f"{name} overflows {dtype}")
    moments = on_device(tensor)
    # A block's mean is rounded to float32, which moves it by `shift` standard deviations at random: squares of that
    # add up, products with the deviations of blocks (sd / sqrt(width) each) mostly cancel.
    shift = 2**-24 * abs(seen.mean()) / seen.std() if seen.std() > 0 else 0
    for statistic, value in naive(seen).items():
        # A mean is as exact as its terms, not as what their signs leave of it.
        slack = 1e-6 * seen.std() / np.sqrt(seen.size) if statistic == "mean" else 0
        tolerance = 2e-5 if SINGLE and statistic == "mean" else 1e-5
        if statistic == "variance":
            tolerance += 4 * shift**2 + 4 * shift / np.sqrt(seen.size)
        assert getattr(moments, statistic) == pytest.approx(value, rel=tolerance, abs=slack), statistic


@pytest.mark.parametrize("name", TENSORS)
def test_on_the_host(name):
    moments = Moments.of(TENSORS[name])
    for statistic, value in naive(TENSORS[name]).items():
        assert getattr(moments, statistic) == pytest.approx(value, rel=1e-12), statistic
    assert moments.stddev == pytest.approx(TENSORS[name].std(), rel=1e-12)


def test_parts_merge_to_the_whole_in_any_order():
    x = 100 + RNG.standard_normal(1000)
    x[::7] = 0
    parts = [Moments.of(part) for part in np.split(x, [1, 300, 300, 650])]  # one of them empty
    whole = Moments.of(x)
    for order in itertools.permutations(parts):
        merged = Moments.merged(order)
        assert merged.to_dict() == pytest.approx(whole.to_dict(), rel=1e-12)


def test_nothing_and_nonfinite():
    empty = Moments()
    assert empty.count == 0
    assert np.isnan(empty.variance)
    assert np.isnan(empty.zero_fraction)
    assert Moments.of([]) == empty
    assert empty.merge(Moments.of([1.0, 0.0])) == Moments.of([1.0, 0.0])
    broken = np.array([1.0, np.nan, np.inf, 0.0], "float32")
    assert Moments.of(broken).nonfinite == 2
    for moments in (Moments.of(broken), on_device(keras.ops.convert_to_tensor(broken))):
        assert (moments.count, moments.zeros) == (4, 1)
        assert np.isnan(moments.variance)


def test_columns_of_blocks_by_hand():
    """The first and the last of three tensors have no blocks; the scale is the largest deviation, of either sign."""
    x = np.array([[-9.0, 1.0, 1.0, 1.0], [1.0, 0.0, 2.0, 3.0]], "float32")
    row = reduce_blocks([(1, keras.ops.convert_to_tensor(x))], 3, together=False)
    count, mean, m2, scale, _, _, zeros = (keras.ops.convert_to_numpy(column) for column in row[:-1])
    assert row.nonfinite is None
    assert (count.tolist(), zeros.tolist()) == ([0, 8, 0], [0, 1, 0])
    assert mean == pytest.approx([0, 0, 0], abs=1e-7)
    assert scale[1] == pytest.approx(9)
    assert m2[1] * scale[1] ** 2 == pytest.approx((x.astype("float64") ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("shape", [(1001, 3), (100, 7), (3, 13), (100, 512)])
def test_equal_elements_have_no_variance_on_the_device(shape):
    """Seven times 0.1, added up in float32 and divided again, is not 0.1; nor are 512 thirds a third."""
    for value in (0.1, 0.7, 1 / 3, 1e10 / 3, 1e-20 / 7):
        x = keras.ops.convert_to_tensor(np.full(shape, value, "float32"))
        row = reduce_blocks([(0, x)], 1, together=False)
        assert float(keras.ops.convert_to_numpy(row.scaled_m2)[0]) == 0
