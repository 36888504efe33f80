"""The data that a scheme's forward passes run on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_initkit._checks import checked_count
from keras_initkit.inputs._specs import draw_inputs, prepared
from keras_initkit.schemes._plan import Plan

DRAWN_EXAMPLES = 256


def batches_of(plan: Plan, batches: int, batch_size: int | None) -> Iterator[Any]:
    """Batches as the model takes them: of the data, or drawn from the model's input specification.

    Args:
        plan: holds the data, or none.
        batches: how many.
        batch_size: examples in each. `None` shares all data out among them, or draws 256 for each. Where the data
            hold more examples than are asked for, they are taken at random, by the plan's seed.

    Raises:
        ValueError: if the data hold too few examples, do not fit the model, or are not finite.
    """
    batches = checked_count("batches", batches)
    batch_size = None if batch_size is None else checked_count("batch_size", batch_size)
    if plan.x is None:
        for number in range(batches):
            seed = int(np.random.SeedSequence([plan.seed, number]).generate_state(1)[0])
            yield prepared(plan.model, draw_inputs(plan.model, batch_size or DRAWN_EXAMPLES, seed))
        return
    data = prepared(plan.model, plan.x)
    _check_finite(data)
    examples = int(keras.tree.flatten(data)[0].shape[0])
    size = batch_size or examples // batches
    if size * batches > examples or not size:
        raise ValueError(
            f"batches, batch_size: got {batches} and {batch_size}, expected at most the data's {examples} examples."
        )
    if size == examples:
        yield data
        return
    order = np.random.default_rng(plan.seed).permutation(examples)
    for number in range(batches):
        rows = keras.ops.convert_to_tensor(np.sort(order[number * size : (number + 1) * size]), "int32")
        yield keras.tree.map_structure(lambda each, rows=rows: keras.ops.take(each, rows, axis=0), data)


def _check_finite(data: Any) -> None:
    leaves = keras.tree.flatten(data)
    for place, leaf in enumerate(leaves):
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(leaf.dtype)):
            continue
        values = np.asarray(keras.ops.convert_to_numpy(leaf)).astype("float32")
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            name = f"data[{place}]" if len(leaves) > 1 else "data"
            raise ValueError(
                f"{name}: got NaN or infinity in {int((~finite).sum())} of {len(finite)} examples, the first of them "
                f"number {int(np.argmin(finite))}; expected finite numbers. Drop or fill them first."
            )
