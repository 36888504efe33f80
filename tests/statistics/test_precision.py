"""What half precision loses, against the casts themselves."""

import numpy as np
import pytest

from keras_initkit.signal import Tap, TensorStats
from keras_initkit.statistics._precision import LIMITS, lost_fractions

ml_dtypes = pytest.importorskip("ml_dtypes")
TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.mark.parametrize("dtype", LIMITS)
def test_against_casts(dtype):
    sizes = 2.0 ** np.random.default_rng(0).uniform(-150, 128, 20_000)
    values = np.concatenate([sizes, -sizes, [0.0, np.inf, np.nan], LIMITS[dtype]])
    values = values[np.abs(values) < 3.4e38].astype("float32")
    values = np.concatenate([values, np.nextafter(values[-2:], np.float32(1))])
    with np.errstate(over="ignore"):
        cast = values.astype(TYPES[dtype]).astype("float64")
    expected = ((values != 0) & (cast == 0)) | (np.isfinite(values) & ~np.isfinite(cast))
    assert lost_fractions(values)[dtype] == expected.mean()
    assert 0 < expected.mean() < 1


def test_rows_hold_it():
    row = TensorStats.from_array(Tap("weight_gradient", "a"), np.array([1e-9, 1.0, 2.0, 3.0], "float32"))
    assert (row.float16_lost, row.bfloat16_lost) == (0.25, 0.0)
    assert lost_fractions(np.zeros(0))["float16"] is None
    many = np.where(np.arange(200_000) % 2, 1e-9, 1.0)
    assert lost_fractions(many.reshape(2, -1))["float16"] == pytest.approx(0.5, abs=0.01)
