"""What the schemes do to whole models: the signal's variance by layer, their time, and training from them.

    KERAS_BACKEND=tensorflow python benchmarks/schemes.py --only table
    python benchmarks/schemes.py --only time --out schemes.json
    python benchmarks/schemes.py --only training --data mnist.npz

- table: variance of the pre-activations of each layer that has a kernel (of the gates, for a recurrent layer),
  under Keras' own initializers, "auto" and "lsuv": five layers over the depth, and the largest |log10 variance|, on
  the 256 examples that LSUV has used and on 256 others.
- time: LSUV on 25 to 200 layers of width 256, beside the published algorithm, which runs the whole network again
  each time it has scaled a layer or looks whether it needs to. Both draw the same kernels and stop at the same
  tolerance; the pass alone, and all of `initialize`.
- training: `scheme_training.py`, loss after the first and the last epoch from each scheme, over five seeds, on
  scikit-learn's digits or the file given by --data (x, y).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from scheme_models import MODELS, mlp
from scheme_training import training

from keras_initkit.capture._hooks import wrap_activation
from keras_initkit.schemes import Plan, initialize
from keras_initkit.schemes.data_driven._forward import LayerCall, Pass
from keras_initkit.schemes.data_driven._lsuv import lsuv
from keras_initkit.schemes.draw._draw_all import draw_all
from keras_initkit.schemes.draw._recurrent import gate_parts, gate_pre_activations
from keras_initkit.structure import weighted_layers

EXAMPLES = 256


def variances(model: keras.Model, x: np.ndarray) -> dict[str, float]:
    """Variance of each layer's pre-activations, of each gate's for a recurrent layer."""
    found: dict[str, float] = {}

    def visit(call: LayerCall) -> None:
        if isinstance(call.layer, keras.layers.RNN):
            gates = gate_parts(call.layer, call.kernels) and gate_pre_activations(call)
            found.update((f"{call.path}/{number}", float(z.var())) for number, z in enumerate(gates or []))
        else:
            found[call.path] = float(call.pre_activation().var())

    Pass(Plan(model, weighted_layers(model))).run(x, visit)
    return found


def table() -> dict[str, Any]:
    """Prints the table of variances; returns all of them."""
    results: dict[str, Any] = {}
    print("| model | scheme | first | 1/4 | 1/2 | 3/4 | last | largest abs log10 | on fresh data |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, make in MODELS.items():
        keras.utils.set_random_seed(0)
        model = make()
        data = np.random.default_rng(0).standard_normal((2, EXAMPLES, *model.input_shape[1:])).astype("float32")
        for scheme in ("Keras", "auto", "lsuv"):
            if scheme != "Keras":
                initialize(model, scheme, data[0] if scheme == "lsuv" else None, seed=0)
            used, fresh = (variances(model, x) for x in data)
            results.setdefault(name, {})[scheme] = {"used": used, "fresh": fresh}
            values = list(used.values())
            shown = [values[round(part * (len(values) - 1))] for part in (0, 0.25, 0.5, 0.75, 1)]
            worst = [max(abs(np.log10(v)) for v in each.values()) for each in (used, fresh)]
            cells = [f"{value:.3g}" for value in shown] + [f"{value:.3f}" for value in worst]
            print(f"| {name} | {scheme} | " + " | ".join(cells) + " |", flush=True)
    return results


def rerunning(plan: Plan, tolerance: float = 0.01) -> None:
    """LSUV as it was published: the network runs once more whenever a variance is looked at."""
    draw_all(plan, "orthogonal")
    for kernel in plan.kernels:
        layer: Any = kernel.layer
        seen: list[Any] = []

        def keep(activation: Callable[[Any], Any], z: Any, seen: list[Any] = seen) -> Any:
            seen.append(z)
            return activation(z)

        for _ in range(10):
            seen.clear()
            with wrap_activation(layer, keep):
                plan.model(keras.ops.convert_to_tensor(plan.x), training=True)
            variance = float(keras.ops.convert_to_numpy(seen[0]).astype("float64").var())
            if abs(variance - 1) <= tolerance:
                break
            values = np.asarray(keras.ops.convert_to_numpy(kernel.variable.value))
            plan.assign(kernel.variable, values / variance**0.5)


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """The shortest time of several."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def timing() -> dict[str, Any]:
    """Prints times and ratios; returns them."""
    x = np.random.default_rng(0).standard_normal((EXAMPLES, 256)).astype("float32")

    def plan(model: keras.Model) -> Plan:
        return Plan(model, weighted_layers(model), x)

    warm = mlp(3, 256, "tanh")
    for function in (lambda: lsuv(plan(warm)), lambda: initialize(warm, "lsuv", x), lambda: rerunning(plan(warm))):
        function()
    print("| layers | lsuv, s | initialize, s | re-running, s | re-running / lsuv | re-running / initialize |")
    print("|---|---|---|---|---|---|")
    results: dict[str, Any] = {}
    for depth in (25, 50, 100, 200):
        model = mlp(depth, 256, "tanh")
        one = seconds(lambda model=model: lsuv(plan(model)), 5)
        verb = seconds(lambda model=model: initialize(model, "lsuv", x, seed=0), 3)
        again = seconds(lambda model=model: rerunning(plan(model)), 1)
        results[str(depth)] = {"lsuv": one, "initialize": verb, "re-running": again}
        print(
            f"| {depth} | {one:.3f} | {verb:.3f} | {again:.2f} | {again / one:.1f} | {again / verb:.1f} |", flush=True
        )
    for name in ("lsuv", "initialize", "re-running"):
        print(f"time(200) / time(25), {name}: {results['200'][name] / results['25'][name]:.1f}")
    return results


def main() -> None:
    """Prints the sections that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["table", "time", "training"], help="one section; all if left out")
    parser.add_argument("--data", default="digits", help="'digits', 'mnist' or an .npz file of x and y (training)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", help="JSON file of all figures")
    arguments = parser.parse_args()
    sections = {
        "table": table,
        "time": timing,
        "training": lambda: training(arguments.data, arguments.epochs, arguments.seeds),
    }
    results: dict[str, Any] = {"keras": keras.__version__, "backend": keras.backend.backend()}
    for name, section in sections.items():
        if arguments.only in (None, name):
            start = time.perf_counter()
            print(f"\n{name}\n")
            results[name] = section()
            print(f"\n{time.perf_counter() - start:.0f} s, Keras {keras.__version__}, {keras.backend.backend()}")
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
