"""What a measured step makes of its tensors, on every backend, against NumPy in float64."""

import functools

import keras
import numpy as np
import pytest
from helpers import dead_units, saturated_units

from keras_initkit.capture.step._reduction import (
    DEFAULT_SAMPLE,
    LOG_EDGES,
    MeasurementSpec,
    Update,
    read_rows,
    reduce_taps,
)
from keras_initkit.signal import Moments, Tap
from keras_initkit.statistics import _device_units
from keras_initkit.statistics._ops import take_rows
from keras_initkit.statistics._sampling import take_sample

RNG = np.random.default_rng(0)
TENSORS = {
    "normal": RNG.standard_normal((64, 128)),
    "odd sizes": RNG.standard_normal((31, 7, 3)),
    "large mean": 1e4 + RNG.standard_normal((64, 128)),
    "tiny": 1e-25 * RNG.standard_normal((300, 7)),
    "huge": 1e30 * RNG.standard_normal((300, 8)),
    "blocks of different sizes": RNG.standard_normal((50, 64)) * np.logspace(-6, 6, 50)[:, None],
    "relu": np.maximum(RNG.standard_normal((32, 5, 6, 8)), 0),
    "vector": RNG.standard_normal(1001),
    "constant": np.full((4, 5), 0.1),
    "zeros": np.zeros((4, 5)),
}
# Without float64 on the device, sums over blocks are rounded to float32 too.
TOLERANCE = 2e-5 if keras.backend.backend() == "jax" else 1e-5


def tensor(x, dtype="float32"):
    return keras.ops.cast(keras.ops.convert_to_tensor(np.asarray(x, "float32")), dtype)


def spec_of(sample_size, **options):
    return MeasurementSpec(sample_size=sample_size, **options)


@functools.lru_cache
def reducer(taps, sample_size, limits, histograms, rectified):
    def reduce(tensors):
        by_tap = dict(zip(taps, tensors, strict=True))
        return reduce_taps(by_tap, dict(limits), spec_of(sample_size), histograms, rectified=rectified)

    if keras.backend.backend() != "jax":
        return reduce
    import jax

    return jax.jit(reduce)  # as in a training step; eagerly each operation would be compiled by itself


def taps_of(names):
    return [Tap(*(name.split(":") if ":" in name else ["output", name])) for name in names]


def rows(tensors, sample_size=None, limits=None, histograms=False, rectified=()):
    """Rows of taps by name, each of an output or of the kind that stands before a colon."""
    taps = tuple(taps_of(tensors))
    reduce = reducer(taps, sample_size, tuple((limits or {}).items()), histograms, rectified)
    matrix = keras.ops.convert_to_numpy(reduce(list(tensors.values())))
    return {row.tap.layer: row for row in read_rows(taps, matrix, {})}


def test_every_moment_of_every_element():
    seen = rows({name: [tensor(x)] for name, x in TENSORS.items()})
    assert list(seen) == list(TENSORS)
    for name, x in TENSORS.items():
        moments, expected = seen[name].moments, Moments.of(x.astype("float32"))
        for field in ("count", "minimum", "maximum", "zeros", "nonfinite"):
            assert getattr(moments, field) == getattr(expected, field), (name, field)
        # A mean is as exact as its terms, not as what their signs leave of it.
        assert moments.mean == pytest.approx(expected.mean, rel=TOLERANCE, abs=1e-5 * expected.stddev), name
        variance = 0 if name == "constant" else expected.variance
        assert moments.variance == pytest.approx(variance, rel=TOLERANCE, abs=0), name


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sums over blocks are rounded to float32 there")
@pytest.mark.parametrize("mean", [1e2, 1e3, 1e4])
def test_a_large_mean_costs_nothing(mean):
    """Blocks are merged by their means; were those rounded, the variance would be off by 6e-8 of mean / deviation."""
    for seed in range(10):
        x = (mean + np.random.default_rng(seed).standard_normal((10, 10))).astype("float32")
        moments, expected = rows({"a": [tensor(x)]})["a"].moments, Moments.of(x)
        assert moments.variance == pytest.approx(expected.variance, rel=1e-6, abs=0)
        assert moments.mean == pytest.approx(expected.mean, rel=0, abs=1e-7 * expected.stddev)


def test_what_needs_no_care_is_as_exact():
    """Tensors whose squares neither cancel nor overflow take the short way; one alone that does sends all the other."""
    rng = np.random.default_rng(0)  # its own: which tests ran before depends on the process
    benign = {
        "relu": np.maximum(rng.standard_normal((300, 64)), 0),
        "mean 5": 5 + rng.standard_normal((200, 96)),
        "1e-12": 1e-12 * rng.standard_normal((5000,)),
        "zeros": np.zeros((100, 100)),
        "small, with a mean": 1e3 + rng.standard_normal((10, 10)),
    }
    for extra in ({}, {"large mean": 300 + rng.standard_normal((100, 100))}, {"1e25": 1e25 * np.eye(100)}):
        given = {**benign, **extra}
        seen = rows({name: [tensor(x)] for name, x in given.items()})
        for name, x in given.items():
            moments, expected = seen[name].moments, Moments.of(x.astype("float32"))
            assert (moments.count, moments.zeros, moments.maximum) == (x.size, expected.zeros, expected.maximum), name
            # The sum of squares is at most 30 times that of the deviations, and is rounded to 6e-8.
            assert moments.variance == pytest.approx(expected.variance, rel=TOLERANCE, abs=0), name


@pytest.mark.parametrize(
    "x",
    [
        100 + RNG.standard_normal((100, 100)),  # squares would leave three digits of the variance
        1e-19 * RNG.standard_normal((100, 100)),  # squares of the small ones would vanish, where denormals are flushed
        1e-22 * RNG.standard_normal((100, 100)),  # squares would have two digits, or vanish
        1e-30 * np.repeat([[1, -1]], 5000, axis=0),  # nothing would be left, and no mean either
        np.where(RNG.random((100, 100)) < 0.01, 3e-20, 0),  # blocks of zeros beside others, whose 1 / scale^2 overflows
    ],
    ids=["mean 100", "1e-19", "1e-22", "+-1e-30", "mostly zero"],
)
def test_what_needs_care_gets_it_alone(x):
    moments, expected = rows({"a": [tensor(x)]})["a"].moments, Moments.of(x.astype("float32"))
    assert moments.variance == pytest.approx(expected.variance, rel=TOLERANCE, abs=0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_in_single(dtype):
    x = 300 * RNG.standard_normal((256, 64))  # squares and sums overflow float16
    given = tensor(x, dtype)
    expected = Moments.of(keras.ops.convert_to_numpy(keras.ops.cast(given, "float32")))
    moments = rows({"a": [given]})["a"].moments
    assert (moments.nonfinite, moments.count) == (0, x.size)
    assert moments.variance == pytest.approx(expected.variance, rel=TOLERANCE, abs=0)


def test_several_calls_and_none():
    x = RNG.standard_normal((64, 8))
    seen = rows({"several": [tensor(x[:10]), tensor(x[10:])], "none": [], "whole": [tensor(x)]})
    assert list(seen) == ["several", "whole"]
    assert seen["several"].moments.count == x.size
    assert seen["several"].moments.variance == pytest.approx(seen["whole"].moments.variance, rel=1e-6)
    assert not rows({"none": []})


def test_outputs_without_units_take_nothing_from_the_others():
    """No examples are a batch's last, empty part; no units a slice of nothing."""
    relu = np.maximum(RNG.standard_normal((20, 4)), 0)
    relu[:, 1] = 0
    given = {"no units": [tensor(np.zeros((20, 0)))], "relu": [tensor(relu)], "no examples": [tensor(np.zeros((0, 4)))]}
    seen = rows(given, limits={"relu": (0.0, np.inf)})
    assert list(seen) == ["relu"]
    assert seen["relu"].dead_units == 0.25
    assert not rows({"no units": [tensor(np.zeros((20, 0)))]})


def test_calls_of_different_widths_have_no_units_in_common():
    row = rows({"a": [tensor(np.zeros((5, 4))), tensor(np.ones((5, 6)))]}, limits={"a": (0.0, 1.0)})["a"]
    assert (row.moments.count, row.moments.zeros) == (50, 20)
    assert row.dead_units is row.saturated is row.saturated_units is None


def test_a_sample_has_a_standard_error_below_one_percent():
    """64 tensors of a known variance: the spread of the estimates, itself known to 1 / sqrt(2 * 64) = 9 %."""
    drawn = RNG.standard_normal((64, 200, 257)).astype("float32")
    seen = rows({f"{i}": [tensor(x)] for i, x in enumerate(drawn)}, DEFAULT_SAMPLE)
    counts = {row.moments.count for row in seen.values()}
    assert len(counts) == 1
    assert 20_000 <= counts.pop() <= DEFAULT_SAMPLE
    errors = np.array([row.moments.variance for row in seen.values()]) - 1
    assert np.sqrt(np.mean(errors**2)) < 0.01 * (1 + 3 / np.sqrt(2 * 64))
    assert abs(errors.mean()) < 3 * 0.01 / np.sqrt(64)


@pytest.mark.parametrize("shape", [(256, 512), (64, 32, 32, 16), (3000, 96), (100_000,)])
def test_a_sample_is_spread_over_examples_and_units(shape):
    """Where the variance is another in each row, column and position, the sample has a fair share of all."""
    x = RNG.standard_normal(shape)
    for axis, size in enumerate(shape):
        ramp = np.linspace(0.5, 1.5, size).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        sample = keras.ops.convert_to_numpy(take_sample(tensor(x * ramp), DEFAULT_SAMPLE))
        # Kurtosis of such a mixture is 4.2: sqrt(3.2 / n) is the standard error; three of them, and one for strata.
        assert sample.var() == pytest.approx((x * ramp).var(), rel=4 * np.sqrt(3.2 / sample.size)), axis


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["output", "output_gradient", "weight", "weight_update"])
def test_no_element_is_missed(kind, bad):
    """One of 262,144 elements, wherever it stands; its neighbours of the other tensors stay as they are."""
    x = RNG.standard_normal((512, 512)).astype("float32")
    for place in (0, 77_777, 262_143):
        broken = x.copy()
        broken.flat[place] = bad
        given = tensor(broken)
        if kind == "weight_update":
            given = Update(take_sample(tensor(x), DEFAULT_SAMPLE), given)
        seen = rows({f"{kind}:a": [given], "weight:b": [tensor(x)], "output:c": [tensor(x)]}, DEFAULT_SAMPLE)
        assert [row.moments.nonfinite for row in seen.values()] == [1, 0, 0]
        assert seen["b"].moments.variance == pytest.approx(1, rel=0.05)


def test_a_sum_that_overflows_is_no_infinity():
    x = np.full((512, 512), 3e37, "float32")
    assert rows({"weight:a": [tensor(x)]}, DEFAULT_SAMPLE)["a"].moments.nonfinite == 0


def test_infinities_of_both_signs_are_counted():
    x = np.ones((10, 20))
    x[3, 4], x[5, 6], x[7, 8] = np.inf, -np.inf, np.nan
    row = rows({"a": [tensor(x)]})["a"]
    assert row.moments.nonfinite == 3
    assert np.isnan(row.moments.variance)


@pytest.mark.parametrize("sample_size", [None, 4096])
def test_dead_and_saturated_units(sample_size):
    x = RNG.standard_normal((64, 3, 40))
    relu, tanh = np.maximum(x, 0), np.tanh(x)
    relu[..., ::4] = 0
    relu[17, 1, 4] = 1e-30  # one spike among 192 keeps a unit alive
    tanh[..., :8] = np.sign(x[..., :8])
    symmetric = np.concatenate([x, -x])  # columns that sum to nothing, and are not dead
    symmetric[..., 5] = 0
    given = {"relu": [tensor(relu)], "tanh": [tensor(tanh)], "symmetric": [tensor(symmetric)]}
    seen = rows(given, sample_size, {"relu": (0.0, np.inf), "tanh": (-1.0, 1.0)})
    for name, values in {"relu": relu, "tanh": tanh, "symmetric": symmetric}.items():
        assert seen[name].dead_units == pytest.approx(dead_units(values).mean(), abs=1e-7)
    assert (seen["relu"].dead_units, seen["symmetric"].dead_units) == pytest.approx((9 / 40, 1 / 40), abs=1e-7)
    assert seen["tanh"].saturated_units == pytest.approx(saturated_units(tanh, -1, 1).mean(), abs=1e-7)
    # Eight of 40 units lie at the ends, of the others P(|tanh z| > 0.99) = 0.8 %; a sample has at least 2,500 elements.
    assert seen["tanh"].saturated == pytest.approx(
        (np.abs(tanh) > 0.99).mean(), abs=1e-6 if sample_size is None else 0.01
    )
    assert seen["relu"].saturated is seen["symmetric"].saturated_units is None


@pytest.mark.parametrize("spoiled", [False, True])
def test_units_that_a_separate_relu_makes_zero_are_dead(spoiled):
    x = RNG.standard_normal((64, 3, 40))
    x[..., :7] = -np.abs(x[..., :7])
    x[17, 1, 0] = 1e-30  # one spike keeps a unit alive
    x[..., 7] = 0
    if spoiled:  # then the elements themselves are looked at
        x[3, 2, 9] = np.nan
    seen = rows({"a": [tensor(x[:40]), tensor(x[40:])], "b": [tensor(x)]}, rectified=("a",))
    assert seen["a"].dead_units == pytest.approx(7 / 40, abs=1e-7)
    assert seen["b"].dead_units == pytest.approx(1 / 40, abs=1e-7)
    assert [row.moments.nonfinite for row in seen.values()] == [spoiled, spoiled]


@pytest.mark.parametrize("sample_size", [None, 4096])
def test_saturation_of_several_layers_at_the_boundary(sample_size):
    """Few enough elements that the sample has all; 95 of 100 examples saturate a unit, 94 do not."""
    narrow, wide = np.full((100, 4), 0.2), np.full((100, 6), 0.5)
    narrow[:95, 0], narrow[:94, 1] = 1, -1
    wide[:, 2], wide[:50, 3] = 0.0, 1.0
    given = {"narrow": [tensor(narrow)], "wide": [tensor(wide)]}
    seen = rows(given, sample_size, {"narrow": (-1.0, 1.0), "wide": (0.0, 1.0)})
    assert (seen["narrow"].saturated_units, seen["wide"].saturated_units) == pytest.approx((1 / 4, 1 / 6), abs=1e-7)
    assert (seen["narrow"].saturated, seen["wide"].saturated) == pytest.approx((1.89 / 4, 1.5 / 6), abs=1e-6)
    assert (seen["narrow"].dead_units, seen["wide"].dead_units) == pytest.approx((0, 1 / 6), abs=1e-7)


def test_histograms_count_what_numpy_counts():
    x = RNG.standard_normal((100, 64)) * np.logspace(-40, 14, 100)[:, None]
    x[0, :7], x[1, 0], x[2, 0] = 0, np.nan, np.inf
    given = x.astype("float32")
    expected = np.histogram(given[np.isfinite(given)].astype("float64"), LOG_EDGES)[0]
    counts, edges = rows({"weight:a": [tensor(given)], "b": [tensor(np.ones((3, 3)))]}, histograms=True)["a"].histogram
    start = int(np.flatnonzero(np.isclose(LOG_EDGES, edges[0], rtol=1e-12))[0])
    assert edges == tuple(LOG_EDGES[start : start + len(edges)])
    assert sum(counts) == np.isfinite(given).sum() == 6398
    # An element within the rounding of a logarithm may fall to the other side of an edge: 2e-5 of a bin.
    assert np.abs(np.array(counts) - expected[start : start + len(counts)]).sum() <= 4
    assert counts[0] > 0 < counts[-1]
    assert rows({"b": [tensor(np.ones((3, 3)))]})["b"].histogram is None


def test_replicas_merge_to_the_whole():
    x = RNG.standard_normal((48, 8)).astype("float32")
    taps = [Tap("output", "a"), Tap("weight", "a")]
    parts = [{taps[0]: [tensor(part)], taps[1]: [tensor(x)]} for part in (x[:40], x[40:])]
    matrices = [keras.ops.convert_to_numpy(reduce_taps(part, {}, spec_of(None), True)) for part in parts]
    merged = read_rows(taps, np.stack(matrices), {})
    whole = read_rows(
        taps, keras.ops.convert_to_numpy(reduce_taps({t: [tensor(x)] for t in taps}, {}, spec_of(None), True)), {}
    )
    for one, other in zip(merged, whole, strict=True):
        assert one.moments.to_dict() == pytest.approx(other.moments.to_dict(), rel=TOLERANCE, abs=1e-6)
        assert one.histogram == other.histogram


def test_rows_are_taken_as_keras_takes_them():
    matrix, places = tensor(RNG.standard_normal((50, 7))), np.array([0, 49, 3, 3, 20], "int32")
    expected = keras.ops.convert_to_numpy(matrix)[places]
    for chosen in (places, keras.ops.convert_to_tensor(places)):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(take_rows(matrix, chosen)), expected)


def test_tensors_that_are_checked_in_groups_are_checked_as_together(monkeypatch):
    broken = RNG.standard_normal((40, 6))
    broken[3, 2], broken[5, 5] = np.nan, np.inf
    dead = np.maximum(RNG.standard_normal((40, 6)), 0)
    dead[:, 4] = 0
    given = {
        "weight:a": np.ones((6, 6)),
        "a": dead,
        "output_gradient:b": broken,
        "c": np.maximum(RNG.standard_normal((40, 8)), 0),
        "weight_gradient:d": broken,
        "output_gradient:e": np.ones((40, 8)),
        "f": np.where(np.isnan(broken), np.nan, dead),
    }
    limits = dict.fromkeys("acf", (0.0, np.inf))
    tensors = {name: [tensor(x)] for name, x in given.items()}
    together = rows(tensors, 10_000, limits)
    monkeypatch.setattr(_device_units, "TOGETHER", 300)
    reducer.cache_clear()
    apart = rows(tensors, 10_000, limits)
    reducer.cache_clear()
    assert {name: row.moments.nonfinite for name, row in apart.items()} == dict(
        zip("abcdef", (0, 2, 0, 2, 0, 1), strict=True)
    )
    for name, row in together.items():
        for field in ("saturated", "dead_units", "saturated_units"):
            assert getattr(apart[name], field) == getattr(row, field), (name, field)
    assert apart["a"].dead_units == pytest.approx(1 / 6)
    groups = _device_units._group_taps(dict(zip(taps_of(given), tensors.values(), strict=True)))
    assert [[tap.layer for tap in group] for group in groups] == [["a"], ["c"], ["f"], ["b"], ["e"], ["d", "a"]]


@pytest.mark.parametrize("units", [True, False])
@pytest.mark.parametrize("nonfinite", [True, False])
def test_what_nobody_asked_for_is_not_looked_for(nonfinite, units):
    """A NaN that the sample misses takes a pass over everything; dead units take one over outputs."""
    dead = np.maximum(RNG.standard_normal((400, 64)), 0)
    dead[:, :16] = 0
    hidden, seen = np.ones((400, 64)), np.full((40, 6), np.inf)
    hidden[137, 5] = np.nan
    sample = keras.ops.convert_to_numpy(take_sample(tensor(hidden), 256))
    assert np.isfinite(sample).all()
    given = {"dead": dead, "output_gradient:hidden": hidden, "output_gradient:seen": seen}
    taps = tuple(taps_of(given))
    by_tap = {tap: [tensor(x)] for tap, x in zip(taps, given.values(), strict=True)}
    matrix = keras.ops.convert_to_numpy(reduce_taps(by_tap, {}, spec_of(256, nonfinite=nonfinite, units=units)))
    found = {row.tap.layer: row for row in read_rows(taps, matrix, {})}
    assert found["dead"].dead_units == (0.25 if units else None)
    assert {name: row.moments.nonfinite for name, row in found.items()} == {
        "dead": 0,
        "hidden": int(nonfinite),
        "seen": seen.size if nonfinite else 1,
    }
    assert found["dead"].moments.variance == pytest.approx(np.var(np.asarray(take_sample(tensor(dead), 256))), rel=1e-4)


def test_what_several_ask_for_is_measured_once():
    few = MeasurementSpec.for_statistics(["update_ratio"], 100)
    assert few == MeasurementSpec(("weight", "weight_update"), 100, True, False, False)
    default = MeasurementSpec.for_statistics(["activation_variance", "dead_units", "nonfinite"], 50, exact=False)
    assert (default.nonfinite, default.units, default.exact) == (True, True, False)
    both = MeasurementSpec.joined([few, default])
    assert set(both.kinds) == {"weight", "weight_update", "output", "output_gradient", "weight_gradient"}
    assert (both.sample_size, both.exact, both.nonfinite, both.units) == (100, False, True, True)
    assert MeasurementSpec.joined([few, MeasurementSpec(sample_size=None)]).sample_size is None
