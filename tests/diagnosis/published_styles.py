"""Sound models in the styles of Keras' published examples: own training steps, and tables of numbers and categories."""

import keras
from keras import layers, ops


class Sampling(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs):
        mean, log_variance = inputs
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seeds)


class VAE(keras.Model):
    """Encoder and decoder, trained by reconstruction and divergence; its loss is made in `train_step` alone."""

    def __init__(self, **options):
        super().__init__(**options)
        image = keras.Input((16, 16, 1))
        x = layers.Conv2D(16, 3, 2, "same", activation="relu")(image)
        x = layers.Dense(16, "relu")(layers.Flatten()(layers.Conv2D(32, 3, 2, "same", activation="relu")(x)))
        mean, log_variance = layers.Dense(2, name="mean")(x), layers.Dense(2, name="log_variance")(x)
        self.encoder = keras.Model(image, [mean, log_variance, Sampling()([mean, log_variance])], name="encoder")
        code = keras.Input((2,))
        x = layers.Reshape((4, 4, 32))(layers.Dense(4 * 4 * 32, "relu")(code))
        x = layers.Conv2DTranspose(32, 3, 2, "same", activation="relu")(x)
        x = layers.Conv2DTranspose(16, 3, 2, "same", activation="relu")(x)
        self.decoder = keras.Model(code, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x), name="decoder")

    def call(self, x):
        return self.decoder(self.encoder(x)[2])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        mean, log_variance, code = self.encoder(x)
        image = self.decoder(code)
        error = ops.mean(ops.sum(keras.losses.binary_crossentropy(x, image), axis=(1, 2)))
        return error - 0.5 * ops.mean(ops.sum(1 + log_variance - mean**2 - ops.exp(log_variance), axis=1))


def generator_and_discriminator():
    noise = keras.Input((32,))
    x = layers.Reshape((4, 4, 32))(layers.LeakyReLU(0.2)(layers.Dense(4 * 4 * 32)(noise)))
    for filters in (32, 16):
        x = layers.LeakyReLU(0.2)(layers.Conv2DTranspose(filters, 4, 2, "same")(x))
    generator = keras.Model(noise, layers.Conv2D(1, 7, padding="same", activation="sigmoid")(x), name="generator")
    image = keras.Input((16, 16, 1))
    x = image
    for filters in (16, 32):
        x = layers.LeakyReLU(0.2)(layers.Conv2D(filters, 3, 2, "same")(x))
    discriminator = keras.Model(image, layers.Dense(1)(layers.GlobalMaxPooling2D()(x)), name="discriminator")
    return generator, discriminator


def classifier(width, name):
    image = keras.Input((16, 16, 1))
    x = layers.Conv2D(width, 3, 2, "same")(image)
    x = layers.MaxPooling2D(2, 1, "same")(layers.LeakyReLU(0.2)(x))
    x = layers.Conv2D(2 * width, 3, 2, "same")(x)
    return keras.Model(image, layers.Dense(10)(layers.Flatten()(x)), name=name)


class Distiller(keras.Model):
    """A student that learns from a frozen teacher."""

    def __init__(self, **options):
        super().__init__(**options)
        self.teacher, self.student = classifier(32, "teacher"), classifier(8, "student")
        self.teacher.trainable = False

    def call(self, x):
        return self.student(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        soft = ops.softmax(self.teacher(x, training=False) / 10)
        distilled = keras.losses.kl_divergence(soft, ops.softmax(y_pred / 10))
        hard = keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
        return ops.mean(0.1 * hard + 0.9 * 100 * distilled)


class Contrastive(keras.Model):
    """Pulls two noisy views of an image together (SimCLR)."""

    def __init__(self, **options):
        super().__init__(**options)
        self.encoder = keras.Sequential(
            [
                keras.Input((16, 16, 1)),
                layers.Conv2D(16, 3, 2, activation="relu"),
                layers.Conv2D(16, 3, 2, activation="relu"),
                layers.Flatten(),
                layers.Dense(32, "relu"),
            ],
            name="encoder",
        )
        self.projection = keras.Sequential(
            [keras.Input((32,)), layers.Dense(32, "relu"), layers.Dense(32)], name="projection"
        )

    def call(self, x):
        return self.projection(self.encoder(x))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        one, two = (ops.normalize(self(x + 0.1 * keras.random.normal(ops.shape(x), seed=s)), axis=1) for s in (1, 2))
        similarities = ops.matmul(one, ops.transpose(two)) / 0.1
        labels = ops.arange(ops.shape(x)[0])
        return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, similarities, from_logits=True))


def encode(numbers, categories):
    """Numeric columns as they are (standardized data), categories by tables."""
    columns = [keras.Input((1,), name=f"number_{i}") for i in range(numbers)]
    coded = [keras.Input((1,), dtype="int32", name=f"category_{i}") for i in range(categories)]
    embedded = [layers.Flatten()(layers.Embedding(10, 4)(each)) for each in coded]
    return [*columns, *coded], columns, embedded


def wide_and_deep():
    inputs, columns, embedded = encode(3, 3)
    wide = layers.BatchNormalization()(layers.concatenate([*columns, *embedded]))
    deep = layers.concatenate([*columns, *embedded])
    for units in (32, 32):
        deep = layers.Dropout(0.1)(layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(deep))))
    return keras.Model(inputs, layers.Dense(1, "sigmoid")(layers.concatenate([wide, deep])))


class GatedLinearUnit(layers.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.linear, self.sigmoid = layers.Dense(units), layers.Dense(units, activation="sigmoid")

    def call(self, x):
        return self.linear(x) * self.sigmoid(x)


class GatedResidualNetwork(layers.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.elu, self.linear, self.dropout = layers.Dense(units, "elu"), layers.Dense(units), layers.Dropout(0.1)
        self.gate, self.norm, self.project = GatedLinearUnit(units), layers.LayerNormalization(), layers.Dense(units)

    def call(self, inputs):
        x = self.dropout(self.linear(self.elu(inputs)))
        if inputs.shape[-1] != self.units:
            inputs = self.project(inputs)
        return self.norm(inputs + self.gate(x))


class VariableSelection(layers.Layer):
    def __init__(self, features, units, **options):
        super().__init__(**options)
        self.networks = [GatedResidualNetwork(units) for _ in range(features)]
        self.together, self.weights_ = GatedResidualNetwork(units), layers.Dense(features, "softmax")

    def call(self, inputs):
        weights = ops.expand_dims(self.weights_(self.together(ops.concatenate(inputs, -1))), -1)
        each = ops.stack([network(x) for network, x in zip(self.networks, inputs, strict=True)], axis=1)
        return ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), each), axis=1)


def variable_selection():
    inputs, columns, embedded = encode(3, 3)
    coded = [*(layers.Dense(4)(each) for each in columns), *embedded]
    selected = VariableSelection(6, 16, name="selection")(coded)
    return keras.Model(inputs, layers.Dense(1, "sigmoid", name="head")(GatedResidualNetwork(16, name="last")(selected)))
