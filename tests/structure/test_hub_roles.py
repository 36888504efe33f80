"""Roles and presets on transformers that others wrote: keras-hub's backbones with the head of a language model."""

import importlib.util
import math
import re
import sys
from pathlib import Path

import keras
import pytest
from small_transformers import named, role_by_name

import keras_initkit as ik
from keras_initkit.structure._transformer_roles import TransformerRoles

pytest.importorskip("keras_hub", reason="keras-hub is not installed", exc_type=ImportError)
pytestmark = [pytest.mark.one_backend, pytest.mark.slow]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


for part in ("architecture_models", "preset_models", "presets"):
    presets = load(part)
MODELS = presets.language_models()
UNTIED = ("LlamaBackbone", "MistralBackbone", "MixtralBackbone", "Phi3Backbone")  # a second table is the head
# What keras-hub's names say where `role_by_name` does not know them.
NAMES = {
    r"reverse_embeddings": "head",
    r"layer_norm_?\d*/weight": "gain",
    r"self_attention/embeddings": "position embedding",  # T5's biases of scores
    r"(embedding_projection|conv_layer_\d)/kernel": "projection",
    r"attention/output_projector": "attention output",
    r"(/output_projector|ffw_linear|dense_4h_to_h|mlp_output_dense|[^_]feedforward_output_dense)/kernel": "mlp out",
    r"(gate_projector|dense_h_to_4h|ffw_gating_2)/kernel": "mlp in",
    r"(input_projector|ffw_gating)/kernel": "gate",  # what the activation is put on
}


@pytest.fixture(scope="module", params=MODELS)
def built(request):
    keras.utils.set_random_seed(0)
    return request.param, MODELS[request.param]()


def test_there_are_a_dozen():
    assert len(MODELS) >= 12


def expected_role(model, path):
    if path.endswith("token_embedding/embeddings"):
        return "embedding" if model in UNTIED else "tied embedding"
    return next((role for pattern, role in NAMES.items() if re.search(pattern, path)), role_by_name(path))


def test_every_weight_has_the_role_that_its_name_says(built):
    name, model = built
    roles = TransformerRoles(model)
    found = {path: str(roles[weight]) for path, weight in named(model).items()}
    assert "other" not in found.values()
    assert found == {path: expected_role(name, path) for path in found}


def test_what_is_added_to_scores_is_no_stream():
    model = MODELS["T5Backbone"]()
    assert TransformerRoles(model).writes == [4, 6]  # two blocks, those of the decoder with cross-attention


@pytest.mark.parametrize("scheme", ["gpt2", "nanochat", "deepnorm"])
def test_the_loss_starts_as_that_of_a_guess(built, scheme):
    name, model = built
    if scheme == "deepnorm" and name not in presets.POST_NORM:
        pytest.skip("it is pre-norm")
    ik.initialize(model, scheme, seed=1)
    assert presets.loss(model) == pytest.approx(math.log(100), rel=0.05)
