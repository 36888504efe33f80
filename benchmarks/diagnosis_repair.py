"""Whether models train as well after `repair` as if nothing had been wrong with their initialization."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import keras
from diagnosis_architectures import ARCHITECTURES, SOUND, Variant, build
from diagnosis_data import Data, load
from diagnosis_faults import Fault, at_fault, faults
from diagnosis_runs import PROBED, Trainer

from keras_initkit.diagnosis import diagnose, repair

EPOCHS = 4


def repairs(seeds: list[int], names: str, verbose: bool) -> dict[str, Any]:
    """Prints, for every repairable fault, the accuracies of the sound, the faulty and the repaired model."""
    print("\n| fault | architecture | sound | faulty | repaired | relative | sound layers kept |")
    print("|---|---|---|---|---|---|---|")
    results: dict[str, Any] = {}
    for name, architecture in ARCHITECTURES.items():
        data = load(architecture.data)
        by_variant: dict[Variant, dict[str, Fault]] = defaultdict(dict)
        for label, fault in faults(name).items():
            if fault.repairable and names in f"{name}, {label}":
                by_variant[fault.variant][label] = fault
        plain = _scores(Trainer(build(name), data, EPOCHS, 32), data, seeds) if by_variant else []
        for variant, chosen in by_variant.items():
            trainer = Trainer(build(name, variant), data, EPOCHS, 32)
            # Where the fault is what the variant itself is drawn by, the sound version is the model without it.
            set_apart = variant != SOUND and all(fault.settings for fault in chosen.values())
            sound = _scores(trainer, data, seeds) if set_apart else plain
            for label, fault in chosen.items():
                with at_fault(trainer.model, fault) as spoil:
                    faulty = _scores(trainer, data, seeds, spoil)
                    repaired, notes, kept = _repaired(trainer, data, seeds, spoil)
                means = [sum(scores) / len(scores) for scores in (sound, faulty, repaired)]
                relative = means[2] / means[0]
                cells = " | ".join(f"{mean:.3f}" for mean in means)
                flag = " **short**" if relative < 0.95 else ""
                print(f"| {label} | {name} | {cells} | {relative:.3f}{flag} | {kept} |", flush=True)
                results[f"{name}, {label}"] = [*means, relative]
                if verbose and flag:
                    print("\n".join(f"    {note}" for note in notes))
        keras.backend.clear_session()
    short = [name for name, (*_, relative) in results.items() if relative < 0.95]
    print(f"{len(results) - len(short)} of {len(results)} within 5 % of the sound version; short: {short}")
    return results


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
        report = repair(trainer.model, diagnose(trainer.model, x, y), (x, y))
        if not notes:
            notes = [note for note in report.notes if note.startswith("repair")]
            pairs = [(a, b) for a, b in zip(before, trainer.model.get_weights(), strict=True) if a.ndim > 1]
            kept = f"{sum((a == b).all() for a, b in pairs)} of {len(pairs)}"
        scores.append(trainer.trained(data.x))
    return scores, notes, kept
