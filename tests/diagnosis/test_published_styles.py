"""No alarm on sound models whose training or inputs are their own: VAE, GAN, distillation, contrast, tables."""

import keras
import numpy as np
import pytest
from published_styles import (
    VAE,
    Contrastive,
    Distiller,
    generator_and_discriminator,
    variable_selection,
    wide_and_deep,
)

import keras_initkit as ik
from keras_initkit.callbacks import LayerStatsCallback

pytestmark = [pytest.mark.one_backend, pytest.mark.slow]

GENERATOR = np.random.default_rng(0)
IMAGES, LABELS = GENERATOR.random((64, 16, 16, 1)).astype("float32"), GENERATOR.integers(0, 10, 64)
TABLE = [GENERATOR.standard_normal((64, 1)).astype("float32") for _ in range(3)]
TABLE += [GENERATOR.integers(0, 10, (64, 1)) for _ in range(3)]
ANSWERS = GENERATOR.integers(0, 2, (64, 1)).astype("float32")


def alarms(findings):
    return [(each.severity, each.kind, each.layer) for each in findings if each.severity != "info"]


@pytest.mark.parametrize(
    ("make", "data", "loss"),
    [
        (VAE, (IMAGES,), None),
        (Distiller, (IMAGES, LABELS), None),
        (Contrastive, (IMAGES,), None),
        (wide_and_deep, (TABLE, ANSWERS), "binary_crossentropy"),
    ],
    ids=["vae", "distillation", "contrastive", "wide_and_deep"],
)
def test_no_alarm_while_training(make, data, loss):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile("adam", loss)
    callback = LayerStatsCallback(None, update_freq=2, on_finding="ignore")
    model.fit(*data, epochs=3, batch_size=16, verbose=0, callbacks=[callback])
    assert alarms(ik.diagnose(callback)) == []


def parts():
    generator, discriminator = generator_and_discriminator()
    contrastive = Contrastive()
    contrastive(IMAGES[:2])
    return {
        "generator": (generator, None),
        "discriminator": (discriminator, IMAGES),
        "vae encoder": (VAE().encoder, IMAGES),
        "contrastive": (contrastive, IMAGES),
        "wide and deep": (wide_and_deep(), TABLE),
        "variable selection": (variable_selection(), TABLE),
    }


def test_no_alarm_about_parts_and_tables():
    keras.utils.set_random_seed(0)
    found = {name: alarms(ik.diagnose(model, x)) for name, (model, x) in parts().items()}
    assert not any(found.values()), found
