"""Thirty transformer faults, encoder and decoder, each with its healthy twin: what `diagnose` says of both.

    python benchmarks/transformer_faults.py [--only mask] [--seeds 1]

A fault is named if a finding of its kind (error or warning) is among the findings; any other kind of attention is a
false alarm, and so is each that the healthy twin's findings name. Some cases need keras-hub.
"""

from __future__ import annotations

import argparse
import warnings

import keras
import numpy as np
from transformer_models import CASES, WORDS

from keras_initkit import diagnose

KINDS = (
    "future_attended",
    "padding_attended",
    "uneven_attention",
    "collapsed_attention",
    "uniform_attention",
    "query_key_frozen",
    "residual_lost",
    "positions_lost",
)


def sentences(seed: int, examples: int = 16, length: int = 13, padded: bool = False) -> np.ndarray:
    """Returns tokens of a Markov chain; 0 is padding, at the end of most examples where it is asked for."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros((examples, length), "int32")
    tokens[:, 0] = rng.integers(1, WORDS, examples)
    for place in range(1, length):
        jump = rng.random(examples) < 0.3
        tokens[:, place] = np.where(jump, rng.integers(1, WORDS, examples), tokens[:, place - 1] * 3 % (WORDS - 1) + 1)
    if padded:
        lengths = rng.integers(length // 2, length + 1, examples)
        tokens[np.arange(length) >= lengths[:, None]] = 0
    return tokens


def judge(name: str, faulty: bool, seed: int) -> tuple[set[str], list[str]]:
    """Returns the kinds of errors and warnings about attention, and all that was found."""
    case = CASES[name]
    keras.utils.set_random_seed(seed)
    tokens = sentences(seed, padded=case.padded)
    model, x, y, loss = case.build(faulty, tokens)
    if case.trained and y is not None:
        model.compile(keras.optimizers.Adam(1e-3), loss)
        model.fit(x, y, epochs=case.trained, batch_size=16, verbose=0)
    findings = diagnose(model, x, y, loss=loss)
    grave = [each for each in findings if each.severity != "info"]
    kinds = {each.kind for each in grave if each.kind in KINDS}
    return kinds, [f"{each.severity} {each.kind} in {each.layer}" for each in grave]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="parts of names of cases")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    right = missed = extra = alarms = 0
    print("| fault | kind | faulty | healthy twin |")
    print("|---|---|---|---|")
    for name, case in CASES.items():
        if given.only and not any(each in name for each in given.only):
            continue
        for seed in range(given.seeds):
            found, all_found = judge(name, True, seed)
            twin, all_twin = judge(name, False, seed)
            right += case.kind in found
            missed += case.kind not in found
            extra += len(found - {case.kind, *case.follows})
            alarms += len(twin)
            cells = name, case.kind, ", ".join(all_found) or "-", ", ".join(all_twin) or "-"
            print(f"| {' | '.join(cells)} |", flush=True)
            keras.backend.clear_session()
    precision = right / max(right + extra + alarms, 1)
    recall = right / max(right + missed, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    print(f"\n{right} of {right + missed} named, {extra} other kinds, {alarms} alarms of twins; F1 {f1:.3f}")


if __name__ == "__main__":
    main()
