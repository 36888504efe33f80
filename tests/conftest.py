import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest


@pytest.fixture(autouse=True)
def float32_policy():
    """Every test starts from Keras' default policy, whatever the one before has set."""
    yield
    keras.config.set_dtype_policy("float32")
