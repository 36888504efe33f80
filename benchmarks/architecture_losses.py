"""The loss of untrained language models over the logarithm of their vocabulary, after each scheme.

    python benchmarks/architecture_losses.py [--only GPT2Backbone] [--schemes he_normal auto lsuv reset]

A model that knows nothing should guess: a loss of ln V. Logits that start large cost more (a softmax that is wrong and
sure of it). The models are keras-hub's language models of two layers and width 32, on random tokens of a vocabulary
of 100; each label is the next token. `he_normal` gives the logits of a head that is not tied a variance of 2, so the
loss is ln V + 1: 1.22 ln V here, 1.09 ln V for a vocabulary of 50,000. Needs keras-hub.
"""

from __future__ import annotations

import argparse
import math
import warnings
from typing import Any

import keras
import numpy as np
from architecture_models import Builder, backbones

from keras_initkit import initialize

VOCABULARY, LENGTH, EXAMPLES = 100, 16, 32
TEXT = np.random.default_rng(0).integers(1, VOCABULARY, (EXAMPLES, LENGTH + 1))
SCHEMES = ("he_normal", "auto", "lsuv", "reset")
CAUSAL = "GPT2 Gemma Llama OPT Bloom Mistral Mixtral Phi3 Falcon GPTNeoX"
MASKED = "Bert Roberta Albert DistilBert FNet DebertaV3"
SEQUENCE = "Bart T5 Whisper"


def language_models() -> dict[str, Builder]:
    """Returns builders of the models with their heads, by the names of the backbones."""
    from keras_hub import models

    bodies = backbones()

    def task(name: str, kind: str) -> Builder:
        return lambda: getattr(models, f"{name}{kind}")(backbone=bodies[f"{name}Backbone"](), preprocessor=None)

    def tied(name: str) -> keras.Model:
        body = bodies[f"{name}Backbone"]()
        hidden = body.output["decoder_sequence_output"]
        if name == "T5":  # as its authors scale what its tied head reads
            hidden = hidden * hidden.shape[-1] ** -0.5
        return keras.Model(body.input, body.token_embedding(hidden, reverse=True))

    return {
        **{f"{name}Backbone": task(name, "CausalLM") for name in CAUSAL.split()},
        **{f"{name}Backbone": task(name, "MaskedLM") for name in MASKED.split()},
        **{f"{name}Backbone": lambda name=name: tied(name) for name in SEQUENCE.split()},  # type: ignore[misc]
    }


def inputs(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns what the model takes, by the names of its inputs."""
    tokens, known = TEXT[:, :-1], np.ones((EXAMPLES, LENGTH), "int32")
    features = np.random.default_rng(0).standard_normal((EXAMPLES, 2 * LENGTH, 80)).astype("float32")
    kinds = {"token_ids": tokens, "padding_mask": known, "segment_ids": 0 * known, "features": features,
             "mask_positions": np.tile(np.arange(LENGTH), (EXAMPLES, 1))}  # fmt: skip
    return {each.name: next(v for end, v in kinds.items() if each.name.endswith(end)) for each in model.inputs}


def excess(model: keras.Model, x: Any) -> float:
    """Returns the mean cross-entropy of the labels over ln V, from logits."""
    found = np.float64(keras.ops.convert_to_numpy(model.predict(x, verbose=0)))
    largest = found.max(-1, keepdims=True)
    logs = found - largest - np.log(np.exp(found - largest).sum(-1, keepdims=True))
    return float(-np.take_along_axis(logs, TEXT[:, 1:, None], -1).mean() / math.log(VOCABULARY))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="names of backbones")
    parser.add_argument("--schemes", nargs="*", default=SCHEMES)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| model | own | " + " | ".join(given.schemes) + " |\n|---" + "|---" * (1 + len(given.schemes)) + "|")
    for name, build in language_models().items():
        if given.only and name not in given.only:
            continue
        figures = []
        for scheme in (None, *given.schemes):
            keras.utils.set_random_seed(0)
            model = build()
            x = inputs(model)
            if scheme is not None:
                initialize(model, scheme, *([x] if scheme in ("lsuv", "data_dependent") else []), seed=0)
            figures.append(f"{excess(model, x):.2f}")
            keras.backend.clear_session()
        print(f"| {name} | " + " | ".join(figures) + " |", flush=True)


if __name__ == "__main__":
    main()
