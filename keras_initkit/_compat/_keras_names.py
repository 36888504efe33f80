"""A private name of Keras around strings that name initializers."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from keras_initkit._compat._moved import unless_moved

# Whether Keras is older than 3.16, where a class that is registered is known by its name.
KNOWS_REGISTERED = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 16)


def name_initializers(classes: Mapping[str, type]) -> None:
    """Has layers know initializers by their registered names, as in `Dense(2, kernel_initializer="package>Name")`.

    From 3.16 on Keras looks for a string in this table alone. If it moves: strings are refused, and instances,
    configurations and saved models work.
    """
    if KNOWS_REGISTERED:
        return
    name = "keras.src.initializers.ALL_OBJECTS_DICT"
    with unless_moved(name, 'give layers initializers such as ActivationScaling(), not "keras_initkit>..."'):
        from keras.src.initializers import ALL_OBJECTS_DICT

        ALL_OBJECTS_DICT.update(classes)
