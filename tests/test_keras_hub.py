"""Transformers that others wrote: keras-hub's backbones, two layers of width 32 each."""

import importlib.util
import sys
from pathlib import Path

import keras
import pytest

import keras_initkit as ik
from keras_initkit.structure._calls import calls

pytest.importorskip("keras_hub", reason="keras-hub is not installed", exc_type=ImportError)
pytestmark = pytest.mark.one_backend

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "architecture_models.py"
spec = importlib.util.spec_from_file_location(BENCHMARK.stem, BENCHMARK)
models = importlib.util.module_from_spec(spec)
sys.modules[BENCHMARK.stem] = models
spec.loader.exec_module(models)
BACKBONES = models.backbones()
DRAWN = [f"{name}Backbone" for name in ("Albert", "Bart", "GPT2", "Gemma", "Mixtral", "T5", "ViT")]
# Layers whose call cannot be opened: this one calls TensorFlow.
CLOSED = {"DebertaV3Backbone": "self_attention_layer"}


@pytest.fixture(scope="module", params=BACKBONES)
def built(request):
    keras.utils.set_random_seed(0)
    return request.param, BACKBONES[request.param]()


def test_every_layer_is_opened(built):
    name, model = built
    closed = {call.path.rpartition("/")[2] for call in calls(model) if call.reason}
    assert closed == ({CLOSED[name]} if name in CLOSED else set())


def test_schemes_draw_kernels_and_leave_the_rest(built):
    """Everything multiplied is drawn; gains, tables of positions and class tokens keep their values, biases are 0."""
    name, model = built
    if name not in DRAWN:
        pytest.skip("it has the parts of another one")
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    report = ik.initialize(model, "he_normal", seed=1)
    drawn = {id(weight) for weight, old in zip(model.weights, before, strict=True)
             if (keras.ops.convert_to_numpy(weight) != old).any()}  # fmt: skip
    left = [weight.path for weight in model.weights if id(weight) not in drawn and len(weight.shape) > 1]
    assert report.kernels
    assert all("embedding" in path or "bias" in path or "token" in path for path in left), left
    zero = [weight.path for weight in model.weights if id(weight) in drawn and len(weight.shape) < 2]
    assert all(path.endswith("bias") for path in zero), zero


@pytest.mark.parametrize("name", ["BertBackbone", "GPT2Backbone", "LlamaBackbone", "ViTBackbone"])
def test_most_of_it_is_predicted_and_nothing_is_wrong(name):
    keras.utils.set_random_seed(0)
    model = BACKBONES[name]()
    report = ik.probe(model, batch_size=16)
    outputs = [row for row in report.rows if row.tap.kind == "output" and row.moments.variance > 0]
    ratios = [row.moments.variance / row.predicted.variance for row in outputs if row.predicted is not None]
    assert len(ratios) >= 0.8 * len(outputs)
    assert sum(1 / 1.3 < ratio < 1.3 for ratio in ratios) >= 0.9 * len(ratios)  # 32 units scatter
    assert [str(each) for each in ik.diagnose(report, model=model) if each.severity == "error"] == []
