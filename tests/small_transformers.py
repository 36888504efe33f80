"""Small transformers whose layers' names say what each kernel is for: written by hand, or of Keras' layers."""

import keras
from keras import layers as L
from keras import ops

WIDTH, HEADS, WORDS, LENGTH = 32, 4, 50, 6


class Own(L.Layer):
    """Attention as people write it: `kind` is "einsum", "matmul", "packed" (one Dense) or "weights" (no layers)."""

    def __init__(self, kind, inner_norm=False, heads=HEADS, **options):
        super().__init__(**options)
        self.kind, self.heads, self.norm = kind, heads, L.LayerNormalization(name="inner") if inner_norm else None
        if kind == "packed":
            self.parts = [L.Dense(3 * WIDTH, name="qkv")]
        elif kind != "weights":
            self.parts = [L.Dense(WIDTH, name=name) for name in ("query", "key", "value")]
        if kind != "weights":
            self.out = L.Dense(WIDTH, name="attention_output")

    def build(self, shape):
        if self.kind == "weights":
            self.matrices = [self.add_weight((WIDTH, WIDTH), name=name) for name in ("query", "key", "value")]
            self.last = self.add_weight((WIDTH, WIDTH), name="attention_output")
        else:
            for part in (*self.parts, self.out):
                part.build((None, None, WIDTH))
        if self.norm is not None:
            self.norm.build((None, None, WIDTH))

    def call(self, x, memory=None):
        memory = x if memory is None else memory
        if self.kind == "packed":
            q, k, v = ops.split(self.parts[0](x), 3, axis=-1)
        elif self.kind == "weights":
            q, k, v = (ops.matmul(each, w) for each, w in zip((x, memory, memory), self.matrices, strict=True))
        else:
            q, k, v = (part(each) for part, each in zip(self.parts, (x, memory, memory), strict=True))
        size = WIDTH // self.heads
        q, k, v = (ops.reshape(each, (-1, each.shape[1], self.heads, size)) for each in (q, k, v))
        if self.kind == "einsum":
            weights = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k) * size**-0.5)
            mixed = ops.einsum("bhqk,bkhd->bqhd", weights, v)
        else:
            q, k, v = (ops.transpose(each, (0, 2, 1, 3)) for each in (q, k, v))
            weights = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * size**-0.5)
            mixed = ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))
        mixed = ops.reshape(mixed, (-1, x.shape[1], WIDTH))
        mixed = mixed if self.norm is None else self.norm(mixed)
        return ops.matmul(mixed, self.last) if self.kind == "weights" else self.out(mixed)


class Experts(L.Layer):
    """Four experts of gated MLPs, weighed by a router."""

    def build(self, shape):
        self.router = self.add_weight((WIDTH, 4), name="router")
        self.gate, self.inner = (self.add_weight((4, WIDTH, 16), name=f"expert_{name}") for name in ("gate", "in"))
        self.out = self.add_weight((4, 16, WIDTH), name="expert_out")

    def call(self, x):
        chosen = ops.softmax(ops.matmul(x, self.router))
        hidden = ops.silu(ops.einsum("bnd,edf->bnef", x, self.gate)) * ops.einsum("bnd,edf->bnef", x, self.inner)
        return ops.sum(ops.einsum("bnef,efd->bned", hidden, self.out) * chosen[..., None], axis=-2)


class Positions(L.Layer):
    """Adds a table of positions."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="position")

    def call(self, x):
        return x + self.table


def attention(kind, name, inner_norm=False):
    if kind == "keras":
        return L.MultiHeadAttention(HEADS, WIDTH // HEADS, name=name)
    if kind == "grouped":
        return L.GroupQueryAttention(WIDTH // HEADS, HEADS, 2, name=name)
    return Own(kind, inner_norm, name=name)


def mlp(x, kind, name, inner_norm=False):
    if kind == "experts":
        return Experts(name=f"{name}_experts")(x)
    if kind == "gated":
        gate = ops.silu(L.Dense(48, name=f"{name}_gate")(x))
        return L.Dense(WIDTH, name=f"{name}_mlp_out")(gate * L.Dense(48, name=f"{name}_mlp_in")(x))
    hidden = L.Dense(64, "relu", name=f"{name}_mlp_in")(x)
    hidden = L.LayerNormalization(name=f"{name}_inner")(hidden) if inner_norm else hidden
    return L.Dense(WIDTH, name=f"{name}_mlp_out")(hidden)


def blocks(x, count, kind="keras", norm="pre", feed="plain", name="b", memory=None):
    """`norm` is "pre", "post", or "sub", which has another one before the last kernel of each branch."""
    normalized = L.LayerNormalization

    def branch(x, part):
        if norm == "post":
            return normalized(epsilon=1e-6)(x + part(x))
        return x + part(normalized(epsilon=1e-6)(x))

    for number in range(count):
        place = f"{name}{number}"
        own = attention(kind, f"{place}_attention", norm == "sub")
        x = branch(x, lambda h, own=own: own(h, h) if kind in ("keras", "grouped") else own(h))
        if memory is not None:
            cross = attention(kind, f"{place}_cross")
            x = branch(x, lambda h, cross=cross: cross(h, memory))
        x = branch(x, lambda h, place=place: mlp(h, feed, place, norm == "sub"))
    return x if norm == "post" else normalized(epsilon=1e-6)(x)


def language_model(count=2, **options):
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = Positions(name="positions")(L.Embedding(WORDS, WIDTH, name="embedding")(tokens))
    return keras.Model(tokens, L.Dense(WORDS, name="head")(blocks(x, count, **options)), name="transformer")


def encoder_decoder(encoders=3, decoders=2, **options):
    source, target = (keras.Input((LENGTH,), dtype="int32", name=name) for name in ("source", "target"))
    memory = blocks(L.Embedding(WORDS, WIDTH, name="embedding_in")(source), encoders, name="e", **options)
    x = L.Embedding(WORDS, WIDTH, name="embedding_out")(target)
    x = blocks(x, decoders, name="d", memory=memory, **options)
    return keras.Model([source, target], L.Dense(WORDS, name="head")(x), name="both")


def tied_head(table):
    """Logits by the table: in a layer, which reads it at each call; outside of one it would be read once."""
    return L.Lambda(lambda x: ops.matmul(x, ops.transpose(table.embeddings)), name="logits")


def named(model):
    """Every weight by `"layer/name"`, as the report names them."""
    from keras_initkit.structure._layer_paths import held_weights

    return {f"{path}/{weight.name}": weight for path, _, weight in held_weights(model)}


def role_by_name(path):
    """The role that the names of the models above, and of keras-hub's, say."""
    words = [
        ("position embedding", ("position",)),
        ("embedding", ("embedding/embeddings", "embedding_in", "embedding_out", "segment")),
        ("router", ("router", "sparse_feedforward_gate")),
        ("expert gate", ("expert_gate", "expert_feedforward_gate")),
        ("expert in", ("expert_in", "expert_feedforward_intermediate")),
        ("expert out", ("expert_out", "expert_feedforward_output")),
        ("query, key, value", ("qkv", "query_key_value")),
        ("attention output", ("attention_output", "output_dense")),
        ("query", ("query",)),
        ("key", ("key",)),
        ("value", ("value",)),
        ("gate", ("_gate/", "gate_dense")),
        ("mlp in", ("_mlp_in", "intermediate_dense")),
        ("mlp out", ("_mlp_out",)),
        ("head", ("head",)),
    ]
    if path.rpartition("/")[2] in ("bias", "beta", "gamma", "scale"):
        return "bias" if path.endswith(("bias", "beta")) else "gain"
    return next((role for role, parts in words if any(part in path for part in parts)), "?")
