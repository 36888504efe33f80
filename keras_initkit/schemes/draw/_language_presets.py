"""Presets of published language models: GPT-2's, and zero output projections."""

from __future__ import annotations

import math

from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.draw._by_role import checked_stddev, draw_stddev, find_roles, finish
from keras_initkit.structure import Kernel
from keras_initkit.structure._layer_paths import held_weights


@register_scheme("gpt2")
def gpt2(plan: Plan, stddev: float = 0.02, positions: float = 0.01) -> None:
    r"""Kernels and tables from N(0, 0.02^2), those that write into the residual stream 1/sqrt(2 L) of it.

        W ~ N(0, s^2),    W_output ~ N(0, s^2 / N),    N = 2 L in a model of L blocks

    N counts the additions to the stream that a kernel writes into: one for each attention and each MLP, also where
    both are added at once; three in each block of a decoder with cross-attention, whose encoder has a stream of its
    own. Tables of positions are drawn from N(0, 0.01^2), as in the authors' code. Biases get their layers' own
    initializers; gains stay.

    Args:
        plan: What may be set.
        stddev: Float. Standard deviation of kernels and embeddings.
        positions: Float. Standard deviation of trained tables of positions that are added to a signal.

    Raises:
        ValueError: If the model cannot be traced, or has no attention or no residual stream.

    References:

    - Radford et al. (2019), "Language models are unsupervised multitask learners", section 2.3 (1/sqrt(N), N the number
      of residual layers); 0.02 and 0.01 stand in the authors' code, https://github.com/openai/gpt-2
    """
    stddev, positions = checked_stddev("stddev", stddev), checked_stddev("positions", positions)
    roles = find_roles(plan, "gpt2")
    for kernel in plan.kernels:
        role = roles[kernel.variable]
        if role.writes and role.stream is not None:
            count = roles.writes[role.stream]
            draw_stddev(plan, kernel, stddev / math.sqrt(count), f"{role}, 1/sqrt({count})")
        else:
            draw_stddev(plan, kernel, stddev, str(role))
    finish(plan, roles)
    for path, _, weight in held_weights(plan.model):
        if path in plan.layers and weight.trainable and str(roles[weight]) == "position embedding":
            draw_stddev(plan, Kernel(weight, in_axes=(), out_axes=-1), positions, "position embedding")


@register_scheme("nanochat")
def nanochat(plan: Plan, embedding: float = 0.8, head: float = 0.001, mlp: float = 0.4) -> None:
    r"""Zero output projections, uniform readers of deviation 1/sqrt(d), a small head and a large embedding.

        W_read ~ U(-a, a), a = sqrt(3 / d);    W_output = 0;    E ~ N(0, 0.8^2);    W_head ~ N(0, 0.001^2)

    Every block starts as the identity and the logits as nearly equal, so that the loss starts at ln V. Queries, keys
    and values read the stream of width d; the kernels that an MLP reads it with are 0.4 of that. So are those of
    experts; a router reads like a query. What stands in the published code beside the kernels (gates, scalars on the
    stream, embeddings of values) is part of its architecture.

    A table that is the head's kernel too, which that model does not have, gets the deviation
    min(0.02, ln V / (2 d)): with blocks that start as the identity a token's row meets itself at the output, and its
    logit, d times the deviation, stays half of where it would outweigh all others. Tables of positions stay.

    Args:
        plan: What may be set.
        embedding: Float. Standard deviation of embeddings.
        head: Float. Standard deviation of the output's kernel.
        mlp: Float. Factor of the kernels that an MLP reads the stream with.

    Raises:
        ValueError: If the model cannot be traced, or has no attention or no residual stream.

    References:

    - Karpathy (2025), nanochat, `GPT.init_weights` of its training code, https://github.com/karpathy/nanochat, which
      gives no equation or experiment for these numbers
    - Zhang, Dauphin and Ma (2019), "Fixup initialization" (branches that start at zero),
      https://arxiv.org/abs/1901.09321
    """
    embedding, head, mlp = (
        checked_stddev(name, value) for name, value in {"embedding": embedding, "head": head, "mlp": mlp}.items()
    )
    roles = find_roles(plan, "nanochat")
    for kernel in plan.kernels:
        role = roles[kernel.variable]
        if role.names == ["tied embedding"]:
            features, tokens = kernel.output_use.fans
            stddev = min(0.02, math.log(max(tokens, 2.0)) / (2 * max(features, 1.0)))
            draw_stddev(plan, kernel, stddev, str(role))
        elif role.names == ["embedding"]:
            draw_stddev(plan, kernel, embedding, str(role))
        elif role.names == ["head"]:
            draw_stddev(plan, kernel, head, str(role))
        elif role.writes:
            draw_stddev(plan, kernel, 0.0, f"{role}, zero")
        else:
            factor = mlp if {"mlp in", "gate", "expert in", "expert gate"}.intersection(role.names) else 1.0
            fan_in = max(kernel.factor**-2 * kernel.fans.fan_in, 1.0)
            draw_stddev(plan, kernel, factor / math.sqrt(fan_in), str(role), "uniform")
    finish(plan, roles)
