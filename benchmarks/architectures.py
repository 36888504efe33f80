"""How much of published architectures `predict` covers, and how well.

    python benchmarks/architectures.py [--only ResNet50 BertBackbone] [--width 32] [--reasons]

Each model is probed once, with its own initialization and random inputs: N(0, 1), or pixel
values for models that rescale them. Of the layers' outputs that have a measured
row, "predicted" is the share for which theory has a variance, and "off" the share of those where it differs from the
measured one by more than a factor of 1.3, either way; the same for the gradients that come back to these outputs.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter

import keras
import numpy as np
from architecture_models import Builder, applications, backbones

from keras_initkit import probe

OFF = 1.3


def pixels(model: keras.Model) -> np.ndarray | None:
    """Returns images of pixel values for a model that rescales them; `None` for another one."""
    if not any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers):
        return None
    return np.random.default_rng(0).normal(127.5, 60.0, (16, *model.inputs[0].shape[1:])).clip(0, 255).astype("float32")


def measure(build: Builder, reasons: bool) -> dict[str, tuple[int, int, int]]:
    """Returns how many rows were measured, predicted, and predicted wrongly, for outputs and their gradients."""
    keras.utils.set_random_seed(0)
    model = build()
    report = probe(model, pixels(model), batch_size=16)
    found = {}
    for kind in ("output", "output_gradient"):
        rows = [row for row in report.rows if row.tap.kind == kind and row.moments.variance > 0]
        predicted = [row for row in rows if row.predicted is not None]
        wrong = [
            row for row in predicted if not 1 / OFF < row.moments.variance / max(row.predicted.variance, 1e-300) < OFF
        ]
        found[kind] = len(rows), len(predicted), len(wrong)
        if reasons:
            for row in wrong[:: 1 if kind == "output" else -1][:12]:
                print(f"    {row.tap}: predicted {row.predicted.variance:.4g}, measured {row.moments.variance:.4g}")
    if reasons:
        notes = [note for note in report.notes if note.startswith(("No prediction", "Nothing"))]
        for reason, count in Counter(note.partition(": ")[2] for note in notes).most_common():
            print(f"    {count} x {reason} ({next(note for note in notes if reason in note)[18:90]})")
    return found


def table(title: str, builders: dict[str, Builder], reasons: bool) -> None:
    """Prints a table of one family of models."""
    print(f"\n| {title} | outputs | predicted | off | gradients predicted | off |\n|---|---|---|---|---|---|")
    totals: Counter[tuple[str, int]] = Counter()

    def line(name: str, counts: dict[str, tuple[int, int, int]]) -> str:
        (all_, known, off), (all_back, known_back, off_back) = counts["output"], counts["output_gradient"]
        shares = [f"{part / max(whole, 1):.0%}" for part, whole in
                  ((known, all_), (off, known), (known_back, all_back), (off_back, known_back))]  # fmt: skip
        return f"| {name} | {all_} | " + " | ".join(shares) + " |"

    for name, build in builders.items():
        counts = measure(build, reasons)
        for kind, numbers in counts.items():
            for place, number in enumerate(numbers):
                totals[kind, place] += number
        print(line(name, counts), flush=True)
        keras.backend.clear_session()
    if totals:
        whole = {kind: tuple(totals[kind, place] for place in range(3)) for kind in ("output", "output_gradient")}
        print(line("all", whole))  # type: ignore[arg-type]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of models")
    parser.add_argument(
        "--reasons", action="store_true", help="print what is off, and why what is not predicted is not"
    )
    parser.add_argument("--width", type=int, default=32, help="of keras-hub's backbones")
    given = parser.parse_args()
    warnings.simplefilter("ignore")

    def chosen(builders: dict[str, Builder]) -> dict[str, Builder]:
        return {name: build for name, build in builders.items() if not given.only or name in given.only}

    table("keras.applications", chosen(applications()), given.reasons)
    try:
        hub = backbones(given.width)
    except ImportError:
        print("\nkeras-hub is not installed, so its backbones are left out.")
        return
    table(f"keras-hub, width {given.width}", chosen(hub), given.reasons)


if __name__ == "__main__":
    main()
