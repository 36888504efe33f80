"""Presets for deep transformers: DeepNorm for post-norm, sub-LN for those with a normalization inside each branch."""

from __future__ import annotations

import math

import numpy as np

from keras_initkit._arrays import to_numpy
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.draw._by_role import checked_stddev, draw_stddev, find_roles, finish, xavier_stddev
from keras_initkit.structure import Kernel
from keras_initkit.structure._calls import calls
from keras_initkit.structure._kernel import as_tuple
from keras_initkit.structure._patterns import gathered_calls
from keras_initkit.structure._streams import other_readers
from keras_initkit.structure._transformer_roles import TransformerRoles
from keras_initkit.structure._unit_order import unit_order

_SCALED = ("value", "attention output", "mlp in", "gate", "mlp out", "expert in", "expert gate", "expert out")


@register_scheme("deepnorm")
def deepnorm(plan: Plan, embedding: float = 0.02, head: float = 0.02) -> None:
    r"""Post-norm transformers of any depth: Xavier's kernels times beta, residuals times alpha.

        x_{l+1} = LN(alpha x_l + f(x_l)),    W ~ N(0, beta^2 2 / (fan_in + fan_out))  of value, output and MLP

    ================  ======================  ======================
    of N, M blocks    alpha                   beta
    ================  ======================  ======================
    encoder alone     (2 N)^(1/4)             (8 N)^(-1/4)
    decoder alone     (2 M)^(1/4)             (8 M)^(-1/4)
    encoder of both   0.81 (N^4 M)^(1/16)     0.87 (N^4 M)^(-1/16)
    decoder of both   (3 M)^(1/4)             (12 M)^(-1/4)
    ================  ======================  ======================

    Queries, keys, and kernels outside of the branches have beta 1.

    The model is not changed: alpha stands in the weights. A normalization has no scale, so
    LN(alpha x + f(x)) = LN(x + f(x) / alpha), and what is divided by alpha is the kernel and bias that end the branch.
    The function is the paper's, but for the normalization's epsilon, which counts alpha^2 times as much. The steps are
    not: the gradient of a kernel that is alpha times smaller is alpha times larger. Adam's steps then move the branch
    alpha times as far as in the paper; to take its steps, train these kernels (the report names them) at 1/alpha of
    the rate, with plain SGD at 1/alpha^2.

    A block counts as two additions to the stream, three in a decoder with cross-attention. The paper gives no
    deviations of embedding and head; 0.02 is BERT's. Biases get their layers' own initializers.

    Args:
        plan: What may be set.
        embedding: Float. Standard deviation of embeddings.
        head: Float. Standard deviation of the output's kernel, or of a table that is both.

    Raises:
        ValueError: If the model cannot be traced, has no attention or no residual stream, or is not post-norm: a sum
            is read before it is normalized. The message names it.

    References:

    - Wang, Ma, Dong, Huang, Zhang and Wei (2022), "DeepNet: Scaling transformers to 1,000 layers", figure 2,
      https://arxiv.org/abs/2203.00555; the table as in the authors' code, https://github.com/microsoft/torchscale
    """
    embedding, head = checked_stddev("embedding", embedding), checked_stddev("head", head)
    roles = find_roles(plan, "deepnorm")
    first_readers = other_readers(gathered_calls(plan.model), roles.streams.branches)
    for branch in roles.streams.branches:
        if (reader := first_readers.get(id(branch.sum))) is not None:
            by = "is the model's output" if reader is branch.sum else f"is read by {reader.path!r}"
            raise ValueError(
                f"deepnorm: the sum {branch.at!r} {by} without a normalization, expected a post-norm transformer, "
                "LN(x + f(x)) everywhere. 'gpt2' or 'nanochat' suit a pre-norm one."
            )
    constants = [_deepnorm_constants(*each) for each in _depths(roles)]
    writers = _draw_scaled(plan, roles, constants, embedding, head)
    for number, (alpha, beta) in enumerate(constants):
        plan.notes.append(
            f"Stream {number}: alpha {alpha:.3g}, beta {beta:.3g}. LN(alpha x + f(x)) = LN(x + f(x) / alpha): the "
            f"{writers[number]} kernels that write into it are divided by alpha. Train them at 1/alpha of the rate "
            "(Adam) for the paper's steps."
        )


@register_scheme("subln")
def subln(plan: Plan, embedding: float = 0.02, head: float = 0.02) -> None:
    r"""Transformers with a second normalization inside each branch: Xavier's kernels times gamma.

        x_{l+1} = x_l + W_out LN(g(W_in LN(x_l))),    W ~ N(0, gamma^2 2 / (fan_in + fan_out))  of value, output and MLP

    ================  ================================
    of N, M blocks    gamma
    ================  ================================
    encoder alone     sqrt(ln 2 N)
    decoder alone     sqrt(ln 2 M)
    encoder of both   sqrt(ln(3 M) ln(2 N) / 3)
    decoder of both   sqrt(ln 3 M)
    ================  ================================

    Queries, keys, all kernels of cross-attentions and those outside of the branches have gamma 1. Embedding, head and
    biases are as in `"deepnorm"`.

    Args:
        plan: What may be set.
        embedding: Float. Standard deviation of embeddings.
        head: Float. Standard deviation of the output's kernel, or of a table that is both.

    Raises:
        ValueError: If the model cannot be traced, has no attention or no residual stream, or the last kernel of a
            branch reads what is not normalized. The message names it.

    References:

    - Wang et al. (2022), "Foundation transformers" (Magneto), https://arxiv.org/abs/2210.06423; the table, and that
      cross-attention has none, as in the authors' code, https://github.com/microsoft/torchscale
    """
    embedding, head = checked_stddev("embedding", embedding), checked_stddev("head", head)
    roles = find_roles(plan, "subln")
    for kernel in roles.walks.kernels:
        role = roles[kernel.variable]
        if role.writes and not role.cross and not roles.walks.reads_normalized(kernel):
            raise ValueError(
                f"subln: {kernel.variable.path!r} ({role}) reads what is not normalized, expected a normalization "
                "before the last kernel of each branch. 'gpt2' suits pre-norm transformers, 'deepnorm' post-norm ones."
            )
    gammas = [(1.0, _subln_gain(*each)) for each in _depths(roles)]
    _draw_scaled(plan, roles, gammas, embedding, head, cross=False)
    for number, (_, gamma) in enumerate(gammas):
        plan.notes.append(f"Stream {number}: gamma {gamma:.3g}.")


def _depths(roles: TransformerRoles) -> list[tuple[float, float, str]]:
    """Returns for each stream the blocks of encoder and decoder, and which of them it is."""
    pairs = {decoder: sorted(read - {decoder}) for decoder, read in roles.sources.items()}
    depths = [(count / 2, count / 2, "alone") for count in roles.writes]
    for decoder, read in pairs.items():
        for encoder in read[:1]:
            n, m = roles.writes[encoder] / 2, roles.writes[decoder] / 3
            depths[encoder], depths[decoder] = (n, m, "encoder"), (n, m, "decoder")
    return depths


def _deepnorm_constants(n: float, m: float, part: str) -> tuple[float, float]:
    if part == "encoder":
        return 0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)
    if part == "decoder":
        return (3 * m) ** 0.25, (12 * m) ** -0.25
    return (2 * n) ** 0.25, (8 * n) ** -0.25


def _subln_gain(n: float, m: float, part: str) -> float:
    if part == "encoder":
        return math.sqrt(math.log(3 * m) * math.log(2 * n) / 3)
    return math.sqrt(math.log(3 * m if part == "decoder" else 2 * n))


def _draw_scaled(
    plan: Plan,
    roles: TransformerRoles,
    constants: list[tuple[float, float]],
    embedding: float,
    head: float,
    cross: bool = True,
) -> list[int]:
    """Draws Xavier's kernels, those of values, outputs and MLPs scaled; returns how many write into each stream.

    Args:
        plan: What may be set.
        roles: Roles of the weights.
        constants: For each stream what its writers are divided by, and the gain of what is scaled.
        embedding, head: Standard deviations.
        cross: Boolean. Whether kernels of cross-attentions are scaled.
    """
    writers = [0] * len(constants)
    divided = []
    for kernel in plan.kernels:
        role = roles[kernel.variable]
        if role.names == ["embedding"]:
            draw_stddev(plan, kernel, embedding, str(role))
            continue
        if role.names in (["head"], ["tied embedding"]):
            draw_stddev(plan, kernel, head, str(role))
            continue
        draw_stddev(plan, kernel, abs(kernel.factor) * xavier_stddev(kernel, role.names), str(role))
        if role.stream is None or (role.cross and not cross) or not set(role.names).intersection(_SCALED):
            continue
        alpha, gain = constants[role.stream]
        factor = gain / alpha if role.writes else gain
        part = None if set(role.names) <= set(_SCALED) else _value_columns(plan, roles, kernel)
        factors = factor if part is None else part * factor + 1 - part
        plan.assign(kernel.variable, to_numpy(kernel.variable) * factors)
        which = "" if part is None else "values "
        plan.note(kernel.variable, f"{role}, {which}times {factor:.3g}")
        if role.writes:
            writers[role.stream] += 1
            divided.append((kernel, alpha))
    finish(plan, roles)
    for kernel, alpha in divided:
        bias = getattr(kernel.layer, "bias", None)
        if bias is not None and plan.was_set(bias):
            plan.assign(bias, bias.value / alpha)
    return writers


def _value_columns(plan: Plan, roles: TransformerRoles, kernel: Kernel) -> np.ndarray:
    """Returns 1 where a kernel of queries, keys and values at once makes values, elsewhere 0, for its variable."""
    for each in roles.attentions:
        if each.value is None or each.value[0].variable is not kernel.variable:
            continue
        source, target = each.value[1].outputs[0], each.attention.value
        outs = as_tuple(kernel.out_axes)
        order = unit_order(calls(plan.model), source, range(-len(outs), 0), target)
        sizes = [kernel.shape[axis] for axis in outs]
        if order is not None:
            mask = np.isin(np.arange(math.prod(sizes)), order).reshape(sizes)
            shape = [size if axis in outs else 1 for axis, size in enumerate(kernel.shape)]
            return np.broadcast_to(mask.reshape(shape), kernel.shape).reshape(kernel.variable.shape).astype("float32")
    raise ValueError(
        f"{kernel.variable.path}: makes queries, keys and values at once, and which of its outputs are values is not "
        "seen. Expected that only reshapes, splits and transposes come before the attention."
    )
