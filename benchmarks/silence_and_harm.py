"""Is silence earned? Kernels whose scale is said not to matter are scaled and trained, and compared with the diagnosis.

    KERAS_BACKEND=jax python benchmarks/silence_and_harm.py --out silence.json [--only transformer] [--told-anew]

The kernels of each of `silence_models.PLACES` are multiplied by 1/100 to 100, trained for 300 steps under SGD with
momentum and under Adam, from three seeds, and compared with the twin from the same seeds whose kernels are left alone.
The rate is Keras' one, or 3 or 9 times that: the first at which the twin has learned (a loss below 5 % of what guessing
costs, ln 10), or the one at which it has learned most. They are harmed if training ends in NaN, or if the training loss
over the last quarter lies above the twin's by more than 5 % of what guessing costs and by more than twice the standard
error of the difference.

`diagnose` sees the first seed's model before training. It agrees with what happened if an error or warning names a
scaled layer, or another one of its block, where it harms, and if there is no error or warning where it does not. Where
it is silent and should not be, the callback's reports of 50 steps are diagnosed too; what they say is printed, and does
not count. The file keeps what was trained, and a run goes on from it; `--told-anew` only asks the rules again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import keras
import numpy as np
from diagnosis_data import load
from silence_models import MODELS, PLACES, Place

from keras_initkit import diagnose, probe
from keras_initkit.callbacks import LayerStatsCallback

FACTORS = (1 / 100, 1 / 30, 1 / 10, 1 / 3, 3, 10, 30, 100)
OPTIMIZERS = {
    "SGD": lambda faster: keras.optimizers.SGD(0.01 * faster, momentum=0.9),
    "Adam": lambda faster: keras.optimizers.Adam(1e-3 * faster),
}
SEEDS, STEPS, BATCH, PROBED = 3, 300, 32, 128
BEHIND = LEARNED = 0.05 * math.log(10)  # in the loss
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Trainer:
    """A model that is compiled once and trained from many beginnings."""

    def __init__(self, name: str, optimizer: str, faster: float):
        self.data = load(MODELS[name].data)
        self._starts = []
        for seed in range(SEEDS):
            keras.utils.set_random_seed(seed)
            self.model = MODELS[name].build()
            self._starts.append(self.model.get_weights())
        self.optimizer = OPTIMIZERS[optimizer](faster)
        self.model.compile(self.optimizer, LOSS)
        self.optimizer.build(self.model.trainable_variables)
        self._slots = [np.array(variable.value) for variable in self.optimizer.variables]  # a step may give them away
        self._step = jax.jit(self._advance)  # not a scan, in which convolutions are many times slower on a CPU

    def begin(self, place: Place, factor: float, seed: int = 0) -> None:
        """Sets the weights of a seed, with the kernels of a place scaled, and the optimizer as new."""
        self.model.set_weights(self._starts[seed])
        for variable in self.model.trainable_variables:
            if place.holds(variable.path):
                variable.assign(variable.value * factor)
        for variable, value in zip(self.optimizer.variables, self._slots, strict=True):
            variable.assign(value)

    def train(self, seed: int) -> float:
        """Returns the loss over the last quarter of a training from where the model is."""
        rng, number = np.random.default_rng(seed), len(self.data.x)
        order = np.concatenate([rng.permutation(number) for _ in range(STEPS * BATCH // number + 1)])
        held = (self.model.trainable_variables, self.model.non_trainable_variables, self.optimizer.variables)
        state, losses = tuple([variable.value for variable in each] for each in held), []
        for step in range(STEPS):
            batch = order[step * BATCH : (step + 1) * BATCH]
            state, loss = self._step(state, self.data.x[batch], self.data.y[batch])
            losses.append(loss)
        return float(np.mean(losses[-STEPS // 4 :]))

    def _advance(self, state: Any, x: Any, y: Any) -> Any:
        def loss_of(trained: Any, others: Any) -> Any:
            logits, others = self.model.stateless_call(trained, others, x, training=True)
            return LOSS(y, logits), others

        trained, others, slots = state
        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained, others)
        trained, slots = self.optimizer.stateless_apply(slots, gradients, trained)
        return (trained, others, slots), loss

    def told_before(self, faster: dict[str, float]) -> dict[str, list[tuple[str, str, str]]]:
        """Returns the errors and warnings about the model as it is, under each optimizer."""
        report, told = probe(self.model, self.data.x[:PROBED], self.data.y[:PROBED]), {}
        for name, make in OPTIMIZERS.items():
            self.model.compile(make(faster[name]), LOSS)
            told[name] = alarms(diagnose(report, model=self.model))
        self.model.compile(self.optimizer, LOSS)
        return told

    def told_in_training(self) -> list[tuple[str, str, str]]:
        """Returns the errors and warnings of a callback over two epochs of 25 steps."""
        callback = LayerStatsCallback(None, update_freq=lambda step: step & (step - 1) == 0, on_finding="ignore")
        self.model.fit(self.data.x, self.data.y, BATCH, 2, verbose=0, callbacks=[callback])
        return alarms(diagnose(callback))


def alarms(findings: Any) -> list[tuple[str, str, str]]:
    """Severity, kind and layer of what is more than information."""
    return [(each.severity, each.kind, each.layer) for each in findings if each.severity != "info"]


def key_of(name: str, place: str, factor: float, optimizer: str) -> str:
    """The key of the kept results; the twin has the factor 1 and no place."""
    return f"{name} | {place} | {factor:.3g} | {optimizer}"


def train_all(name: str, optimizer: str) -> dict[str, Any]:
    """Returns the losses of a model's places and factors, one for each seed, and how much the rate was raised."""

    def losses_of(place: Place, factor: float) -> list[float]:
        losses = []
        for seed in range(SEEDS):
            trainer.begin(place, factor, seed)
            losses.append(trainer.train(seed))
        return losses

    places = [place for place in PLACES if place.model == name]
    twins: dict[float, list[float]] = {}
    for faster in (1, 3, 9):
        if all(not np.mean(twin) < LEARNED for twin in twins.values()):
            trainer = Trainer(name, optimizer, faster)
            twins[faster] = losses_of(places[0], 1)
    faster = min(twins, key=lambda rate: np.nan_to_num(np.mean(twins[rate]), nan=np.inf))
    trainer = Trainer(name, optimizer, faster)
    found: dict[str, Any] = {(key := key_of(name, "", 1, optimizer)): twins[faster], f"{key} | rate": faster}
    for place, factor in ((place, factor) for place in places for factor in FACTORS):
        found[key_of(name, place.name, factor, optimizer)] = losses_of(place, factor)
    return found


def harm_of(losses: list[float], twin: list[float]) -> str:
    """`"NaN"`, the mean loss if it lies clearly above the twin's, or nothing."""
    if not np.isfinite(losses).all():
        return "NaN"
    gap = np.mean(losses) - np.mean(twin)
    error = math.sqrt((np.var(losses, ddof=1) + np.var(twin, ddof=1)) / len(losses))
    return f"{np.mean(losses):.2g}" if gap > max(BEHIND, 2 * error) else ""


def block_of(path: str) -> str:
    """The number in a path, or else its first word: `"1"` of `"sum_1"`, `"attention"` of `"attention/query"`."""
    number = re.search(r"\d+", path)
    return number[0] if number else re.split("[/_]", path)[0]


def is_named(told: list[tuple[str, str, str]], place: Place, paths: list[str]) -> bool:
    """Whether an alarm names a scaled layer, or another one of its block."""
    return not {block_of(path) for path in paths if place.holds(path)}.isdisjoint(block_of(each[2]) for each in told)


def judge(name: str, kept: dict[str, Any]) -> None:
    """Adds to the kept results of a model what the rules say of each."""
    faster = {optimizer: kept[f"{key_of(name, '', 1, optimizer)} | rate"] for optimizer in OPTIMIZERS}
    trainers = {optimizer: Trainer(name, optimizer, rate) for optimizer, rate in faster.items()}
    paths = [variable.path for variable in trainers["SGD"].model.trainable_variables]
    places = [place for place in PLACES if place.model == name]
    for place, factor in [(places[0], 1.0), *((place, factor) for place in places for factor in FACTORS)]:
        trainers["SGD"].begin(place, factor)
        told = trainers["SGD"].told_before(faster)
        for optimizer, trainer in trainers.items():
            key = key_of(name, place.name if factor != 1 else "", factor, optimizer)
            harm = harm_of(kept[key], kept[key_of(name, "", 1, optimizer)])
            agrees, later = is_named(told[optimizer], place, paths) if harm else not told[optimizer], []
            if harm and not agrees:
                trainer.begin(place, factor)
                later = trainer.told_in_training()
            kept[f"{key} | told"] = {"harm": harm, "told": told[optimizer], "agrees": agrees, "later": later}


def spans(factors: list[float]) -> str:
    """Factors for a reader: those that reach an end as `<= 1/30` or `>= 3`."""
    low = [factor for factor in FACTORS if factor < 1 and factor in factors]
    high = [factor for factor in FACTORS if factor > 1 and factor in factors]
    written = lambda factor: f"1/{1 / factor:.0f}" if factor < 1 else f"{factor:g}"  # noqa: E731
    texts = []
    for several, ends in ((low, [f for f in FACTORS if f < 1]), (high, [f for f in FACTORS if f > 1][::-1])):
        if several and set(several) == set(ends[: len(several)]):
            texts.append(f"up to {written(max(several))}" if several is low else f"from {written(min(several))}")
        else:
            texts += [written(factor) for factor in several]
    return ", ".join(texts) or "-"


def print_table(kept: dict[str, Any], only: str) -> None:
    """Prints a row for each place, and what disagrees."""
    cells, agreed, different = 0, 0, []
    print("| where | kernels | SGD: harm | named | Adam: harm | named |\n|---|---|---|---|---|---|")
    for place in PLACES:
        if only not in place.model or f"{key_of(place.model, '', 1, 'Adam')} | told" not in kept:
            continue
        row = [place.model, place.name]
        for optimizer in OPTIMIZERS:
            results = {f: kept[f"{key_of(place.model, place.name, f, optimizer)} | told"] for f in FACTORS}
            harmed = [factor for factor, result in results.items() if result["harm"]]
            broken = [factor for factor, result in results.items() if result["harm"] == "NaN"]
            row.append(spans(harmed) + (f" (NaN {spans(broken)})" if broken else ""))
            row.append(spans([factor for factor, result in results.items() if result["told"]]))
            cells, agreed = cells + len(results), agreed + sum(result["agrees"] for result in results.values())
            for factor, result in results.items():
                if not result["agrees"]:
                    twin = np.mean(kept[key_of(place.model, "", 1, optimizer)])
                    loss = np.mean(kept[key_of(place.model, place.name, factor, optimizer)])
                    words = (
                        f"{place.model}, {place.name}, {spans([factor])}, {optimizer}: loss {loss:.2g}, twin {twin:.2g}"
                    )
                    different.append(f"{words}; told {result['told'][:2]}, in training {result['later'][:2]}")
        print("| " + " | ".join(row) + " |")
    for name in MODELS:
        for optimizer in OPTIMIZERS:
            result = kept.get(f"{key_of(name, '', 1, optimizer)} | told", {"agrees": True})
            if only in name and not result["agrees"]:
                different.append(f"{name}, unscaled, {optimizer}: told {result['told']}")
    print("\n".join(["", f"agreed: {agreed} of {cells}, {agreed / max(cells, 1):.1%}", "", "They differ:", *different]))


def main() -> None:
    """Trains, judges and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="part of the models' names")
    parser.add_argument("--told-anew", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    kept = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in [name for name in MODELS if given.only in name]:
        began, twins = time.process_time(), [key_of(name, "", 1, optimizer) for optimizer in OPTIMIZERS]
        for optimizer, twin in zip(OPTIMIZERS, twins, strict=True):
            if twin not in kept:
                kept |= train_all(name, optimizer)
                given.out.write_text(json.dumps(kept))
        if given.told_anew or f"{twins[0]} | told" not in kept:
            judge(name, kept)
            given.out.write_text(json.dumps(kept))
            print(f"{name}: {time.process_time() - began:.0f} s of a processor", flush=True)
    print_table(kept, given.only)


if __name__ == "__main__":
    main()
