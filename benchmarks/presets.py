"""The presets for transformers on keras-hub's backbones: the role of every weight, and the loss at the start.

    KERAS_BACKEND=torch python benchmarks/presets.py --out presets.json
    python benchmarks/presets.py --names GPT2Backbone,LlamaBackbone --roles

Each model is tiny (two layers of width 32, 100 words) and has the head of a language model, tied or its own. Random
tokens go in, others are to be predicted: the loss of a guess is ln 100. "mimetic" is no preset for language models;
"deepnorm" is for the post-norm ones, "subln" for none of them.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
from typing import Any

import keras
import numpy as np
from preset_models import POST_NORM, WORDS, language_models

import keras_initkit as ik
from keras_initkit.structure._layer_paths import held_weights
from keras_initkit.structure._transformer_roles import TransformerRoles

LENGTH, EXAMPLES = 16, 64


def inputs_of(model: keras.Model, seed: int) -> dict[str, np.ndarray]:
    """Returns random tokens, masks of ones, segments 0, and sounds for what is no integer."""
    generator = np.random.default_rng(seed)
    given: dict[str, np.ndarray] = {}
    for symbol in model.inputs:
        shape = (EXAMPLES, *(size or LENGTH for size in symbol.shape[1:]))
        if "mask" in symbol.name:
            given[symbol.name] = np.ones(shape, "int32")
        elif "segment" in symbol.name:
            given[symbol.name] = np.zeros(shape, "int32")
        elif "token" in symbol.name:
            given[symbol.name] = generator.integers(1, WORDS, shape).astype("int32")
        else:
            given[symbol.name] = generator.normal(size=shape).astype("float32")
    return given


def loss(model: keras.Model, seed: int = 0) -> float:
    """Returns the cross-entropy of random labels, in nats, by float64."""
    logits = np.asarray(model.predict(inputs_of(model, seed), verbose=0, batch_size=EXAMPLES), "float64")
    labels = np.random.default_rng(seed + 1).integers(0, WORDS, logits.shape[:-1])
    logits -= logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return float(np.mean(np.log(np.exp(logits).sum(axis=-1)) - chosen))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", help="names of backbones, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--roles", action="store_true", help="list every weight with its role")
    parser.add_argument("--out", help="JSON file for the numbers")
    options = parser.parse_args()
    built = language_models()
    names = options.names.split(",") if options.names else list(built)
    results: dict[str, Any] = {}
    print(f"ln {WORDS} = {math.log(WORDS):.3f}; largest |loss / ln {WORDS} - 1| of {options.seeds} seeds\n")
    print("| model | weights | without a role | as built | gpt2 | nanochat | deepnorm |\n|---|---|---|---|---|---|---|")
    for name in names:
        keras.utils.set_random_seed(0)
        model = built[name]()
        roles = TransformerRoles(model)
        listed = {f"{path}/{weight.name}": str(roles[weight]) for path, _, weight in held_weights(model)}
        worst: dict[str, float | None] = {"as built": loss(model) / math.log(WORDS) - 1}
        for scheme in ("gpt2", "nanochat", "deepnorm"):
            if scheme == "deepnorm" and name not in POST_NORM:
                worst[scheme] = None
                continue
            off = []
            for seed in range(options.seeds):
                ik.initialize(model, scheme, seed=seed)
                off.append(loss(model, seed) / math.log(WORDS) - 1)
            worst[scheme] = max(off, key=abs)
        unknown = [path for path, role in listed.items() if role == "other"]
        cells = ["pre-norm" if each is None else f"{each:+.1%}" for each in worst.values()]
        print(f"| {name.removesuffix('Backbone')} | {len(listed)} | {len(unknown)} | {' | '.join(cells)} |", flush=True)
        if options.roles:
            for path, role in listed.items():
                print(f"    {role:22} {path}")
        counts = dict(collections.Counter(listed.values()))
        results[name] = {"roles": counts, "without": unknown, "loss": worst, "writes": roles.writes}
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
