"""Builders of the architectures that `architectures.py` measures: keras.applications, and keras-hub's backbones."""

from __future__ import annotations

from collections.abc import Callable

import keras

APPLICATIONS = (
    "ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 InceptionResNetV2 InceptionV3 MobileNet MobileNetV2 "
    "MobileNetV3Small NASNetMobile ResNet50 ResNet50V2 VGG16 Xception"
)
_LARGEST_INPUTS = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}  # the least that they take

Builder = Callable[[], keras.Model]


def applications() -> dict[str, Builder]:
    """Returns a builder for each family of keras.applications, with 64 x 64 images where it takes them."""

    def builder(name: str) -> Builder:
        size = _LARGEST_INPUTS.get(name, 64)
        return lambda: getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=100)

    left_out = {"NASNetMobile"} if keras.backend.backend() == "torch" else set()  # Keras refuses it there
    return {name: builder(name) for name in APPLICATIONS.split() if name not in left_out}


def backbones(width: int = 32) -> dict[str, Builder]:
    """Returns builders of backbones of keras-hub with two layers; raises `ImportError` where it is not installed."""
    from keras_hub import models

    text = {"vocabulary_size": 100, "num_layers": 2, "hidden_dim": width, "intermediate_dim": 2 * width}
    heads = {**text, "num_heads": 4}
    grouped = {**text, "num_query_heads": 4, "num_key_value_heads": 2}
    images = {"num_layers": 2, "num_heads": 4, "hidden_dim": width, "patch_size": 8, "image_shape": (32, 32, 3)}
    arguments = {
        "AlbertBackbone": {**heads, "embedding_dim": width // 2},
        "BartBackbone": heads,
        "BertBackbone": heads,
        "BloomBackbone": heads,
        "CLIPVisionEncoder": {**images, "intermediate_dim": 2 * width},
        "DebertaV3Backbone": heads,
        "DistilBertBackbone": heads,
        "ElectraBackbone": {
            "vocab_size": 100, "num_layers": 2, "num_heads": 4, "hidden_dim": width, "intermediate_dim": 2 * width,
            "embedding_dim": width,
        },
        "FNetBackbone": text,
        "FalconBackbone": {**text, "num_attention_heads": 4},
        "GPT2Backbone": heads,
        "GPTNeoXBackbone": heads,
        "GemmaBackbone": {**grouped, "head_dim": width // 4},
        "LlamaBackbone": grouped,
        "MistralBackbone": grouped,
        "MixtralBackbone": {**grouped, "num_experts": 4, "top_k": 2},
        "OPTBackbone": heads,
        "Phi3Backbone": grouped,
        "RobertaBackbone": heads,
        "T5Backbone": heads,
        "ViTBackbone": {**images, "mlp_dim": 2 * width},
        "WhisperBackbone": heads,
    }  # fmt: skip
    return {
        name: lambda name=name, given=given: getattr(models, name)(**given)  # type: ignore[misc]
        for name, given in arguments.items()
        if hasattr(models, name)
    }


def published_backbones() -> dict[str, Builder]:
    """Returns builders of keras-hub's backbones at published widths, with two layers and a thousand words."""
    from keras_hub import models

    text = {"vocabulary_size": 1000, "num_layers": 2}
    base = {**text, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072}
    large = {**text, "num_query_heads": 32, "num_key_value_heads": 8, "hidden_dim": 2048, "intermediate_dim": 5632}
    images = {"num_layers": 2, "num_heads": 12, "hidden_dim": 768, "patch_size": 16, "image_shape": (224, 224, 3)}
    arguments = {
        "AlbertBackbone": {**base, "embedding_dim": 128},
        "BartBackbone": base,
        "BertBackbone": base,
        "BloomBackbone": {**base, "num_heads": 16, "hidden_dim": 1024, "intermediate_dim": 4096},
        "CLIPVisionEncoder": {**images, "intermediate_dim": 3072},
        "FNetBackbone": {**text, "hidden_dim": 768, "intermediate_dim": 3072},
        "FalconBackbone": {**text, "num_attention_heads": 16, "hidden_dim": 1024, "intermediate_dim": 4096},
        "GPT2Backbone": base,
        "GPTNeoXBackbone": base,
        "GemmaBackbone": {
            **text, "num_query_heads": 8, "num_key_value_heads": 1, "hidden_dim": 2048, "intermediate_dim": 8192,
            "head_dim": 256,
        },
        "LlamaBackbone": large,
        "MistralBackbone": large,
        "OPTBackbone": base,
        "T5Backbone": {**text, "num_heads": 8, "hidden_dim": 512, "intermediate_dim": 2048},
        "ViTBackbone": {**images, "mlp_dim": 3072},
        "WhisperBackbone": {**base, "num_heads": 6, "hidden_dim": 384, "intermediate_dim": 1536},
    }  # fmt: skip
    return {name: lambda name=name, given=given: getattr(models, name)(**given) for name, given in arguments.items()}  # type: ignore[misc]
