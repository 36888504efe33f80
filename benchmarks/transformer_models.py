"""Models of `transformer_faults.py`: each with a switch that breaks it in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

WORDS, UNITS, HEADS = 30, 32, 4
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
Built = tuple[keras.Model, Any, Any, Any]


class Case(NamedTuple):
    """A fault: its kind, how to build the model with or without it, and what its data and training are like.

    `follows` are kinds that are true of the faulty model too.
    """

    kind: str
    build: Callable[[bool, np.ndarray], Built]
    padded: bool = False
    trained: int = 0
    follows: tuple[str, ...] = ()


class Heads(layers.Layer):
    """Attention as it is written by hand, with what can be wrong about it."""

    def __init__(self, causal: str = "", fault: str = "", einsum: bool = False, **options: Any):
        super().__init__(**options)
        self.causal, self.fault, self.einsum = causal, fault, einsum
        kernel = "zeros" if fault == "zero" else "glorot_uniform"
        scale = keras.initializers.RandomNormal(stddev=3.0) if fault == "large" else kernel
        self.query, self.key = (layers.Dense(UNITS, kernel_initializer=scale, name=name) for name in ("query", "key"))
        self.value, self.out = layers.Dense(UNITS, name="value"), layers.Dense(UNITS, name="out")

    def build(self, shape: Any) -> None:
        """Builds the projections."""
        for part in (self.query, self.key, self.value, self.out):
            part.build((*shape[:-1], UNITS))

    def call(self, x: Any, memory: Any = None, keep: Any = None) -> Any:
        """`keep` holds True for the keys that may be read."""
        memory = x if memory is None else memory
        n, m, size = x.shape[1], memory.shape[1], UNITS // HEADS
        q, k, v = (
            ops.reshape(part(each), (-1, length, HEADS, size))
            for part, each, length in ((self.query, x, n), (self.key, memory, m), (self.value, memory, m))
        )
        if self.fault == "stopped":
            q, k = ops.stop_gradient(q), ops.stop_gradient(k)
        scale = {"unscaled": 8.0, "tiny": size**-8.0}.get(self.fault, size**-0.5)
        if self.einsum:
            scores = ops.einsum("bqhd,bkhd->bhqk", q, k) * scale
        else:
            q, k, v = (ops.transpose(each, (0, 2, 1, 3)) for each in (q, k, v))
            scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * scale
        if self.causal:
            lower = np.tril(np.ones((n, m), bool), 1 if self.causal == "late" else 0)
            scores = ops.where(lower.T if self.causal == "reversed" else lower, scores, -1e9)
        if keep is not None:
            scores = scores + (1.0 - ops.cast(keep, "float32"))[:, None, None, :] * -1e9
        weights = ops.softmax(scores, axis=-2 if self.fault == "axis" else -1)
        if self.einsum:
            return self.out(ops.reshape(ops.einsum("bhqk,bkhd->bqhd", weights, v), (-1, n, UNITS)))
        mixed = ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))
        return self.out(ops.reshape(mixed, (-1, n, UNITS)))


class Positions(layers.Layer):
    """Adds a table of positions, and hands the mask on."""

    def build(self, shape: Any) -> None:
        """Makes the table."""
        self.table = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.05))
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        """Adds it."""
        return x + self.table


def feed_forward(x: Any) -> Any:
    """Two layers over each position."""
    return layers.Dense(UNITS)(layers.Dense(2 * UNITS, "gelu")(x))


def embedded(tokens: Any, positions: bool = True, mask_zero: bool = False) -> Any:
    """Looks tokens up, and adds a table of positions."""
    x = layers.Embedding(WORDS, UNITS, mask_zero=mask_zero)(tokens)
    if positions:
        x = Positions()(x)
    return x


def stack(x: Any, attend: Callable[[Any, int], Any], blocks: int = 2, lost: tuple = (), post: bool = False) -> Any:
    """Transformer blocks; `lost` names residual sums that are left out, such as `("attention", 1)`."""
    norm = layers.LayerNormalization
    for block in range(blocks):
        for part, branch in (("attention", attend), ("feed_forward", lambda x, _: feed_forward(x))):
            y = branch(x if post else norm()(x), block)
            x = y if (part, block) == lost else layers.Add()([x, y])
            x = norm()(x) if post else x
    return x if post else norm()(x)


def decoder(attend: Callable[[bool], Callable[[Any, int], Any]], **options: Any) -> Callable[[bool, np.ndarray], Built]:
    """Returns the builder of a model that predicts the next token."""

    def build(faulty: bool, tokens: np.ndarray) -> Built:
        inputs = keras.Input((tokens.shape[1] - 1,), dtype="int32", name="tokens")
        given = {name: value if faulty else () for name, value in options.items() if name == "lost"}
        x = embedded(inputs, mask_zero=options.get("mask_zero", False))
        x = stack(x, attend(faulty), options.get("blocks", 2), post=options.get("post", False), **given)
        return keras.Model(inputs, layers.Dense(WORDS)(x)), tokens[:, :-1], tokens[:, 1:], SPARSE

    return build


def encoder(attend: Callable[..., Callable[[Any, int], Any]], pool: str = "mean", **options: Any) -> Callable:
    """Returns the builder of a classifier; `attend(faulty, tokens)` gets the symbolic tokens too."""

    def build(faulty: bool, tokens: np.ndarray) -> Built:
        inputs = keras.Input((tokens.shape[1],), dtype="int32", name="tokens")
        positions = not (faulty and options.get("without_positions"))
        x = embedded(inputs, positions, options.get("mask_zero", False))
        if faulty and options.get("drops_mask"):
            x = layers.Lambda(lambda x: x * 1.0)(x)
        lost = options.get("lost", ()) if faulty else ()
        x = stack(x, attend(faulty, inputs), options.get("blocks", 2), lost, options.get("post", False))
        x = layers.GlobalAveragePooling1D()(x) if pool == "mean" else x[:, 0]
        labels = (tokens.sum(axis=1) % 3).astype("int32")
        return keras.Model(inputs, layers.Dense(3)(x)), tokens, labels, SPARSE

    return build


def multi_head(**call: Any) -> Callable[[Any, int], Any]:
    """Keras' attention, with arguments of its call."""
    return lambda x, _: layers.MultiHeadAttention(HEADS, UNITS // HEADS)(x, x, **call)


def own(**options: Any) -> Callable[[Any, int], Any]:
    """Attention written by hand."""
    return lambda x, _: Heads(**options)(x)


def in_block(number: int, here: Callable[[Any, int], Any], elsewhere: Callable[[Any, int], Any]) -> Callable:
    """Another attention in one block."""
    return lambda x, block: (here if block == number else elsewhere)(x, block)


def _frozen(faulty: bool, tokens: Any) -> Callable[[Any, int], Any]:
    def attend(x: Any, _: int) -> Any:
        layer = layers.MultiHeadAttention(HEADS, UNITS // HEADS)
        y = layer(x, x)
        if faulty:
            layer.query_dense.trainable = layer.key_dense.trainable = False
        return y

    return attend


def _masked_by_hand(kind: str) -> Callable[..., Any]:
    def attend(faulty: bool, tokens: Any) -> Callable[[Any, int], Any]:
        keep = ops.not_equal(tokens, 0)
        if faulty and kind == "reversed":
            keep = ops.logical_not(keep)

        def block(x: Any, number: int) -> Any:
            if faulty and kind == "second" and number == 1:
                return Heads()(x)
            return Heads(einsum=True)(x, keep=keep)

        return block

    return attend


def _with_mask_input(faulty: bool, tokens: np.ndarray) -> Built:
    ids = keras.Input((tokens.shape[1],), dtype="int32", name="token_ids")
    mask = keras.Input((tokens.shape[1],), dtype="int32", name="padding_mask")
    seen = ops.cast(mask, "bool")[:, None, :]
    attend = multi_head() if faulty else multi_head(attention_mask=seen)
    x = stack(embedded(ids), attend)
    real = ops.cast(mask, "float32")[..., None]
    x = ops.sum(x * real, axis=1) / ops.sum(real, axis=1)
    x, labels = layers.Dense(3)(x), (tokens.sum(axis=1) % 3).astype("int32")
    return keras.Model([ids, mask], x), [tokens, (tokens != 0).astype("int32")], labels, SPARSE


def _translation(fault: str) -> Callable[[bool, np.ndarray], Built]:
    def build(faulty: bool, tokens: np.ndarray) -> Built:
        given = fault if faulty else ""
        source = keras.Input((tokens.shape[1],), dtype="int32", name="source")
        target = keras.Input((tokens.shape[1] - 1,), dtype="int32", name="target")
        keep = ops.not_equal(source, 0)
        memory = stack(embedded(source, given != "positions"), lambda x, _: Heads()(x, keep=keep))
        x, norm = embedded(target), layers.LayerNormalization
        for block in range(2):
            x = layers.Add()([x, Heads(causal="" if given == "mask" else "yes")(norm()(x))])
            masked = None if given == "padding" else keep
            y = Heads(fault="zero" if given == "zero" else "")(norm()(x), memory, keep=masked)
            x = y if given == "residual" and block == 1 else layers.Add()([x, y])
            x = layers.Add()([x, feed_forward(norm()(x))])
        model = keras.Model([source, target], layers.Dense(WORDS)(norm()(x)))
        words = np.where(tokens == 0, 1, tokens)
        return model, [tokens, words[:, :-1]], words[:, 1:], SPARSE

    return build


def _hub_decoder(faulty: bool, tokens: np.ndarray) -> Built:
    from keras_hub.layers import TokenAndPositionEmbedding, TransformerDecoder

    inputs = keras.Input((tokens.shape[1] - 1,), dtype="int32", name="tokens")
    x = TokenAndPositionEmbedding(WORDS, tokens.shape[1], UNITS)(inputs)
    for _ in range(2):
        x = TransformerDecoder(2 * UNITS, HEADS)(x, use_causal_mask=not faulty)
    return keras.Model(inputs, layers.Dense(WORDS)(x)), tokens[:, :-1], tokens[:, 1:], SPARSE


def _hub_encoder(fault: str) -> Callable[[bool, np.ndarray], Built]:
    def build(faulty: bool, tokens: np.ndarray) -> Built:
        from keras_hub.layers import TokenAndPositionEmbedding, TransformerEncoder

        inputs = keras.Input((tokens.shape[1],), dtype="int32", name="tokens")
        masked = fault == "padding"
        if faulty and fault == "positions":
            x = layers.Embedding(WORDS, UNITS)(inputs)
        else:
            x = TokenAndPositionEmbedding(WORDS, tokens.shape[1], UNITS, mask_zero=masked)(inputs)
        if faulty and masked:
            x = layers.Lambda(lambda x: x + 0.0)(x)
        for _ in range(2):
            x = TransformerEncoder(2 * UNITS, HEADS)(x)
        x = layers.GlobalAveragePooling1D()(x)
        return keras.Model(inputs, layers.Dense(3)(x)), tokens, (tokens.sum(axis=1) % 3).astype("int32"), SPARSE

    return build


CAUSAL = {"use_causal_mask": True}
CASES = {
    "mask missing, MultiHeadAttention": Case(
        "future_attended", decoder(lambda bad: multi_head(use_causal_mask=not bad))
    ),
    "mask missing, own": Case("future_attended", decoder(lambda bad: own(causal="" if bad else "yes"))),
    "mask missing in one block": Case(
        "future_attended",
        decoder(lambda bad: in_block(1, multi_head(use_causal_mask=not bad), multi_head(**CAUSAL)), blocks=3),
    ),
    "mask one too late": Case("future_attended", decoder(lambda bad: own(causal="late" if bad else "yes"))),
    "mask reversed": Case("future_attended", decoder(lambda bad: own(causal="reversed" if bad else "yes"))),
    "mask missing, translation": Case("future_attended", _translation("mask")),
    "mask missing, keras-hub": Case("future_attended", _hub_decoder),
    "mask missing, GroupQueryAttention": Case(
        "future_attended",
        decoder(lambda bad: lambda x, _: layers.GroupQueryAttention(8, 4, 2)(x, x, use_causal_mask=not bad)),
    ),
    "padding mask lost in a Lambda": Case(
        "padding_attended", encoder(lambda *_: multi_head(), mask_zero=True, drops_mask=True), True
    ),
    "padding mask in one block only": Case("padding_attended", encoder(_masked_by_hand("second")), True),
    "padding mask reversed": Case("padding_attended", encoder(_masked_by_hand("reversed")), True),
    "padding mask as input, for pooling alone": Case("padding_attended", _with_mask_input, True),
    "padding mask not in cross-attention": Case("padding_attended", _translation("padding"), True),
    "padding mask lost, keras-hub": Case("padding_attended", _hub_encoder("padding"), True),
    "residual of attention lost, pre-norm": Case(
        "residual_lost", decoder(lambda _: multi_head(**CAUSAL), lost=("attention", 1), blocks=3)
    ),
    "residual of attention lost, post-norm": Case(
        "residual_lost", encoder(lambda *_: own(), lost=("attention", 0), post=True)
    ),
    "residual of feed-forward lost": Case(
        "residual_lost", decoder(lambda _: own(causal="yes"), lost=("feed_forward", 0))
    ),
    "residual of feed-forward lost in the last block": Case(
        "residual_lost", encoder(lambda *_: multi_head(), lost=("feed_forward", 2), blocks=3)
    ),
    "residual of cross-attention lost": Case("residual_lost", _translation("residual")),
    "positions lost, mean of positions": Case(
        "positions_lost", encoder(lambda *_: multi_head(), without_positions=True)
    ),
    "positions lost, first token, own": Case(
        "positions_lost", encoder(lambda *_: own(einsum=True), "first", without_positions=True)
    ),
    "positions lost in the source of a translation": Case("positions_lost", _translation("positions")),
    "positions lost, keras-hub": Case("positions_lost", _hub_encoder("positions")),
    "queries and keys not trainable": Case("query_key_frozen", encoder(_frozen)),
    "queries and keys behind stop_gradient": Case(
        "query_key_frozen", decoder(lambda bad: own(causal="yes", fault="stopped" if bad else ""))
    ),
    "queries and keys of zeros": Case(
        "query_key_frozen", encoder(lambda bad, _: own(fault="zero" if bad else ""))
    ),
    "collapsed: scores times 8": Case(
        "collapsed_attention",
        encoder(lambda bad, _: own(fault="unscaled" if bad else "")),
        follows=("query_key_frozen",),
    ),
    "collapsed: large kernels": Case(
        "collapsed_attention",
        decoder(lambda bad: own(causal="yes", fault="large" if bad else "")),
        follows=("query_key_frozen",),
    ),
    "uniform: scores of nothing": Case(
        "uniform_attention",
        encoder(lambda bad, _: own(fault="tiny" if bad else "")),
        trained=120,
        follows=("query_key_frozen",),
    ),
    "softmax over queries": Case(
        "uneven_attention", decoder(lambda bad: own(causal="yes", fault="axis" if bad else ""))
    ),
}  # fmt: skip
