"""Whether models train as well after `repair` as if nothing had been wrong with their initialization."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import keras
from diagnosis_architectures import ARCHITECTURES, Variant, build
from diagnosis_data import Data, load
from diagnosis_faults import Fault, at_fault, faults
from diagnosis_runs import PROBED, Trainer

from keras_initkit.diagnosis import diagnose, repair

EPOCHS = 4


def repairs(seeds: list[int], names: str, verbose: bool) -> dict[str, Any]:
    """Prints, for every repairable fault, the accuracies of the sound, the faulty and the repaired model."""
    print("\n| fault | architecture | sound | faulty | repaired | relative, standard error | sound layers kept |")
    print("|---|---|---|---|---|---|---|")
    results: dict[str, Any] = {}
    for name, architecture in ARCHITECTURES.items():
        data = load(architecture.data)
        by_variant: dict[Variant, dict[str, Fault]] = defaultdict(dict)
        for label, fault in faults(name).items():
            if fault.repairable and names in f"{name}, {label}":
                by_variant[fault.variant][label] = fault
        for variant, chosen in by_variant.items():
            trainer = Trainer(build(name, variant), data, EPOCHS, 32)
            sound: dict[tuple, list[float]] = {}
            for label, fault in chosen.items():
                drawn_by = tuple(fault.sound)
                if drawn_by not in sound:
                    with at_fault(trainer.model, fault._replace(settings=fault.sound)):
                        sound[drawn_by] = _scores(trainer, data, seeds)
                with at_fault(trainer.model, fault) as spoil:
                    faulty = _scores(trainer, data, seeds, spoil)
                    repaired, notes, kept = _repaired(trainer, data, seeds, spoil)
                means = [statistics.fmean(scores) for scores in (sound[drawn_by], faulty, repaired)]
                relative = means[2] / means[0]
                error = relative * math.hypot(_error(sound[drawn_by]) / means[0], _error(repaired) / means[2])
                cells = " | ".join(f"{mean:.3f}" for mean in means)
                flag = " **short**" if relative < 0.95 else ""
                print(f"| {label} | {name} | {cells} | {relative:.3f} ± {error:.3f}{flag} | {kept} |", flush=True)
                results[f"{name}, {label}"] = [*means, relative, error]
                if verbose and flag:
                    print("\n".join(f"    {note}" for note in notes))
        keras.backend.clear_session()
    short = [name for name, (*_, relative, _) in results.items() if relative < 0.95]
    print(f"{len(results) - len(short)} of {len(results)} within 5 % of the sound version; short: {short}")
    return results


def _error(scores: list[float]) -> float:
    """Standard error of a mean over seeds; NaN of one."""
    return statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else math.nan


def _scores(trainer: Trainer, data: Data, seeds: list[int], spoil: Callable[[], None] = lambda: None) -> list[float]:
    scores = []
    for seed in seeds:
        trainer.begin(seed)
        spoil()
        scores.append(trainer.trained(data.x))
    return scores


def _repaired(
    trainer: Trainer, data: Data, seeds: list[int], spoil: Callable[[], None]
) -> tuple[list[float], list[str], str]:
    """Scores, what `repair` says of the first seed, and how many of the model's kernels are as they were."""
    scores, notes, kept = [], [], ""
    x, y = data.x[:PROBED], data.y[:PROBED]
    for seed in seeds:
        trainer.begin(seed)
        spoil()
        before = trainer.model.get_weights()
        report = repair(trainer.model, diagnose(trainer.model, x, y), x, y)
        if not notes:
            notes = [note for note in report.notes if note.startswith("repair")]
            pairs = [(a, b) for a, b in zip(before, trainer.model.get_weights(), strict=True) if a.ndim > 1]
            kept = f"{sum((a == b).all() for a, b in pairs)} of {len(pairs)}"
        scores.append(trainer.trained(data.x))
    return scores, notes, kept
