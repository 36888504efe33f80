"""Every public layer of Keras has a rule or a reason why not: a new one fails here until somebody looks at it."""

import keras
import pytest

from keras_initkit.prediction import predict
from keras_initkit.prediction.operation_rules._rule_table import status
from keras_initkit.statistics._tap import Tap

CLASSES = {
    value.__name__: value
    for value in vars(keras.layers).values()
    if isinstance(value, type) and issubclass(value, keras.Layer)
}
WITHOUT_CALL = {"InputLayer"}  # what predict starts from


@pytest.mark.parametrize("name", sorted(set(CLASSES) - WITHOUT_CALL))
def test_has_a_rule_or_a_reason(name):
    assert status(CLASSES[name]), (
        f"keras.layers.{name} is not known to predict. Write its rule (keras_initkit/prediction/_rules_*.py), or "
        "give the reason why it has none at the end of keras_initkit/prediction/_rules.py."
    )


def test_a_subclass_follows_its_base_or_is_opened():
    class Renamed(keras.layers.Dense):
        pass

    class Doubled(keras.layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    class Concrete(keras.layers.Dense):
        def call(self, x):
            return super().call(x) if float(keras.ops.sum(x)) else x

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape)

    def prediction(layer):
        return predict(keras.Sequential([keras.Input((64,)), layer]))

    renamed, doubled = prediction(Renamed(64, name="layer")), prediction(Doubled(64, name="layer"))
    assert renamed.unpredicted == doubled.unpredicted == {}
    output = Tap("output", "layer", 0)
    assert doubled[output].variance == pytest.approx(4 * renamed[output].variance, rel=0.1)
    reasons = prediction(Concrete(64, name="layer")).unpredicted
    assert list(reasons) == ["layer"]
    assert "does not run on symbolic tensors" in reasons["layer"]
