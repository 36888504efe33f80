"""Language models of `presets.py`: keras-hub's backbones, tiny, each with the head of a language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from architecture_models import backbones

WORDS = 100
# Encoders, decoders, and both; pre-norm and post-norm; separate, grouped and packed projections; gates and experts.
TIED = (
    "BartBackbone", "BertBackbone", "BloomBackbone", "GPT2Backbone", "GemmaBackbone", "MixtralBackbone", "OPTBackbone",
    "RobertaBackbone", "T5Backbone",
)  # fmt: skip
OWN = ("AlbertBackbone", "DistilBertBackbone", "FalconBackbone", "GPTNeoXBackbone", "LlamaBackbone", "MistralBackbone",
       "Phi3Backbone", "WhisperBackbone")  # fmt: skip
POST_NORM = ("AlbertBackbone", "BartBackbone", "BertBackbone", "DistilBertBackbone", "RobertaBackbone")


def language_models() -> dict[str, Callable[[], keras.Model]]:
    """Returns builders of language models: of `TIED` with the table as head, of `OWN` with a Dense layer."""
    builders = backbones()

    def build(name: str) -> keras.Model:
        backbone = builders[name]()
        features: Any = backbone.output
        if isinstance(features, dict):
            features = features.get("decoder_sequence_output", features.get("sequence_output"))
        if name in TIED:
            logits = backbone.token_embedding(features, reverse=True)
        else:
            logits = keras.layers.Dense(WORDS, use_bias=False, name="lm_head")(features)
        return keras.Model(backbone.input, logits, name=name)

    return {name: lambda name=name: build(name) for name in (*TIED, *OWN) if name in builders}  # type: ignore[misc]
