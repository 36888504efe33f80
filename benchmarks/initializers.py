"""Time of our initializers over that of Keras' own of the same distribution, side by side in one process.

    python benchmarks/initializers.py [--repeats 30]

Calls alternate, ours and Keras' in turn, so that whatever slows the machine slows both. Each row is the median
of the ratios of neighbouring calls with its quartiles: below 1 ours is faster. The last column is the ratio of the
fastest calls, which a busy machine disturbs least. Families that Keras lacks are compared with its `Orthogonal` or
`HeNormal` on the same shape.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import keras

from keras_initkit import initializers as ours

theirs = keras.initializers
DENSE, CONV, LARGE = (1024, 1024), (3, 3, 256, 256), (4096, 4096)
PAIRS = [
    (ours.ActivationScaling("linear", seed=1), theirs.LecunNormal(seed=1), [DENSE, CONV, LARGE]),
    (ours.ActivationScaling("relu", distribution="uniform", seed=1), theirs.HeUniform(seed=1), [DENSE, CONV, LARGE]),
    (
        ours.ActivationScaling("relu", distribution="untruncated_normal", seed=1),
        theirs.VarianceScaling(2.0, distribution="untruncated_normal", seed=1),
        [DENSE, CONV, LARGE],
    ),
    (ours.StandardUniform(seed=1), theirs.VarianceScaling(1 / 3, distribution="uniform", seed=1), [DENSE]),
    (ours.DepthScaling(12, seed=1), theirs.RandomNormal(seed=1), [DENSE]),
    (ours.CriticalBias("tanh", q=1.0, seed=1), theirs.RandomNormal(seed=1), [(1024,)]),
    (ours.ScaledOrthogonal("relu", seed=1), theirs.Orthogonal(2**0.5, seed=1), [(512, 512), DENSE, (512, 2048)]),
    (ours.ScaledOrthogonal("relu", seed=1), theirs.Orthogonal(2**0.5, seed=1), [(3, 3, 64, 128)]),
    (ours.GatewiseOrthogonal(4, seed=1), theirs.Orthogonal(seed=1), [(256, 1024), (512, 2048)]),
    (ours.DeltaOrthogonal(seed=1), theirs.Orthogonal(seed=1), [(3, 3, 64, 128), (3, 3, 256, 256)]),
    (ours.ConvOrthogonal(seed=1), theirs.Orthogonal(seed=1), [(3, 64, 64), (3, 3, 64, 128), (3, 3, 256, 256)]),
    (ours.Sparse(seed=1), theirs.HeNormal(seed=1), [DENSE]),
    (ours.ICNR(2, theirs.HeNormal(seed=1)), theirs.HeNormal(seed=1), [(3, 3, 64, 256)]),
]


def seconds(initializer: Callable, shape: tuple[int, ...]) -> float:
    start = time.perf_counter()
    keras.ops.convert_to_numpy(initializer(shape))  # waits for a device that works asynchronously
    return time.perf_counter() - start


def compare(mine: Callable, other: Callable, shape: tuple[int, ...], repeats: int) -> tuple[list[float], float, float]:
    """Ratios of neighbouring calls, and the fastest call of each."""
    for initializer in (mine, other):  # compile
        seconds(initializer, shape)
    pairs = []
    for repeat in range(repeats):
        order = (mine, other) if repeat % 2 else (other, mine)
        times = {initializer: seconds(initializer, shape) for initializer in order}
        pairs.append((times[mine], times[other]))
    return [a / b for a, b in pairs], min(a for a, _ in pairs), min(b for _, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a row at most, but 5 repeats at least")
    options = parser.parse_args()
    print(f"Keras {keras.__version__}, backend {keras.backend.backend()}")
    print(f"{'initializer':<20}{'Keras':<18}{'shape':<20}{'ms':>9}{'ratio':>8}{'quartiles':>15}{'of fastest':>12}")
    for mine, other, shapes in PAIRS:
        for shape in shapes:
            once = seconds(mine, shape) + seconds(other, shape)
            repeats = max(5, min(options.repeats, int(options.budget / once)))
            ratios, fastest, reference = compare(mine, other, shape, repeats)
            low, median, high = statistics.quantiles(ratios, n=4)
            print(
                f"{type(mine).__name__:<20}{type(other).__name__:<18}{shape!s:<20}{1e3 * fastest:>9.2f}{median:>8.2f}"
                f"{f'{low:.2f}-{high:.2f}':>15}{fastest / reference:>12.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
