"""Peak memory of probing a 50-layer model, over that of one training step of it.

Each contestant runs in a process of its own and reports by how much its resident memory has grown, at its peak,
since the model and the data were there and the framework had run a small model once.

    KERAS_BACKEND=tensorflow python benchmarks/probe_memory.py

Prints JSON. The probe is to stay below 1.2 times the training step. On JAX it does not: run eagerly, as a probe
must, JAX keeps what its rule for relu makes, a mask and an array of zeros, besides each output, with a probe or
without (18 MiB a layer for 8; `jax.live_arrays()` shows it). A compiled step makes neither.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

DEPTH, WIDTH, BATCH = 50, 256, 8192  # activations of 8 MiB a layer, so that they outweigh everything else


def megabytes(field: str) -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def run(contestant: str) -> None:
    import keras
    import numpy as np

    from keras_initkit.capture._probe import probe

    def build(width: int, depth: int) -> keras.Model:
        hidden = [keras.layers.Dense(width, "relu") for _ in range(depth)]
        model = keras.Sequential([keras.layers.Input((width,)), *hidden, keras.layers.Dense(10, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    def act(model: keras.Model, x: np.ndarray, y: np.ndarray) -> None:
        if contestant == "probe":
            probe(model, x, y)
        else:
            model.train_on_batch(x, y)

    generator = np.random.default_rng(0)
    act(build(8, 2), generator.standard_normal((8, 8)).astype("float32"), generator.integers(0, 10, 8))
    model = build(WIDTH, DEPTH)
    x, y = generator.standard_normal((BATCH, WIDTH)).astype("float32"), generator.integers(0, 10, BATCH)
    with open("/proc/self/clear_refs", "w") as clear:  # the peak counts from here
        clear.write("5")
    before = megabytes("VmRSS")
    act(model, x, y)
    print(megabytes("VmHWM") - before)


def main() -> None:
    if len(sys.argv) > 1:
        run(sys.argv[1])
        return
    result: dict[str, object] = {"backend": os.environ.get("KERAS_BACKEND", "tensorflow")}
    for contestant in ("training_step", "probe"):
        command = [sys.executable, __file__, contestant]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result[f"{contestant}_mb"] = round(float(done.stdout.split()[-1]), 1)
    result["ratio"] = round(result["probe_mb"] / result["training_step_mb"], 3)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
