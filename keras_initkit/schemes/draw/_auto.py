"""A kernel's variance from the activation that follows it."""

from __future__ import annotations

import keras

from keras_initkit.initializers._core import Distribution
from keras_initkit.initializers._scaling import ActivationScaling
from keras_initkit.schemes._plan import Plan
from keras_initkit.schemes._registry import register_scheme
from keras_initkit.schemes.draw._draw_all import draw_biases
from keras_initkit.schemes.draw._kernel_draw import draw_kernel
from keras_initkit.structure import Kernel
from keras_initkit.structure._following import Following, following_activations, following_products
from keras_initkit.structure._layer_kinds import activation_name, own_activation
from keras_initkit.theory._gains import direction_for, gain

# The gate whose activation makes the state; the others' values, between 0 and 1, are only multiplied with it.
_CANDIDATES = ("cell", "candidate")


@register_scheme("auto")
def auto(plan: Plan, distribution: Distribution = "truncated_normal") -> None:
    """Draws each kernel by the activation that follows it: Var W = gain(activation)^2 / fan_in.

    That is He's rule in front of relu, LeCun's in front of nothing, and their like for every other activation:
    a signal of second moment 1 keeps it. In front of sigmoids, whose second moment is mostly a mean that tells no two
    examples apart, it is the gain that keeps the gradient's: `ActivationScaling`'s `direction="backward"`, 4.7 instead
    of 1.8. The activation is the layer's own, or else the next one in the graph, seen through normalization, dropout,
    pooling and reshapes. Outputs and the projections of attention are linear. Recurrent kernels are orthogonal, gate
    by gate; the kernels that read a recurrent layer's input have variance 1 / fan_in at the gates and gain^2 / fan_in
    at the candidate. Biases get their own layers' initializers.

    Where the graph does not say (branches disagree, the branch ends in a sum, the model cannot be traced), the kernel
    is as for its layer's activation, or linear, and the report says so. Each branch of a residual sum keeps
    the signal that it reads, so the sum grows with depth unless it is normalized; use `"fixup"` or `"lsuv"` there.

    Args:
        plan: what may be set.
        distribution: as in `ActivationScaling`.

    References:

    - He, Zhang, Ren and Sun (2015), "Delving deep into rectifiers", equations 10 and 14,
      https://arxiv.org/abs/1502.01852
    - LeCun, Bottou, Orr and Muller (1998), "Efficient backprop", https://doi.org/10.1007/3-540-49430-8_2
    - Saxe, McClelland and Ganguli (2014), "Exact solutions to the nonlinear dynamics of learning in deep linear neural
      networks" (orthogonal kernels), https://arxiv.org/abs/1312.6120
    """
    following = following_kernels(plan)
    linear = ActivationScaling("linear", distribution=distribution)
    unclear = []
    drawn = []
    for kernel in plan.kernels:
        variable = kernel.variable
        seed, path = plan.derive_seed(variable), plan.path_of(variable)
        if kernel.role == "recurrent":
            plan.assign(variable, draw_kernel(kernel, keras.initializers.Orthogonal(), seed))
            plan.note(variable, "orthogonal")
        elif kernel.gates:
            values = draw_kernel(kernel, linear, seed).reshape(kernel.shape)
            activation = own_activation(kernel.layer)
            for gate, name in enumerate(kernel.gates):
                if name in _CANDIDATES:
                    values[..., gate, :] *= gain(activation, direction_for(activation))
            plan.assign(variable, values.reshape(tuple(variable.shape)))
            plan.note(variable, f"gates linear, {activation_name(activation)}")
        else:
            follows = _follows(kernel, following[id(variable)])
            direction = direction_for(follows.activation)
            scaling = ActivationScaling(follows.activation, distribution=distribution, direction=direction)
            plan.assign(variable, draw_kernel(kernel, scaling, seed))
            plan.note(variable, follows.where if follows.certain else "linear?")
            if not follows.certain:
                unclear.append(f"{path}: {follows.where}")
        drawn.append(kernel)
    draw_biases(plan, drawn)
    if unclear:
        more = f"; and {len(unclear) - 6} more" * (len(unclear) > 6)
        plan.notes.append(
            f"Treated as linear, because the graph does not show an activation: {'; '.join(unclear[:6])}{more}."
        )


def following_kernels(plan: Plan) -> dict[int, Following]:
    """Returns what follows each kernel that a plan may set, by its variable's identity.

    That is what follows its layer, or the operation that multiplies it in the layer's own `call`.
    """
    by_path = following_activations(plan.model)
    products = {id(k.variable): plan.products_of(k) for k in plan.kernels if plan.products_of(k) and not k.tied}
    found = following_products(plan.model, products)
    unclear = Following("linear", "not in the graph", False)
    for kernel in plan.kernels:
        found.setdefault(id(kernel.variable), by_path.get(plan.path_of(kernel.variable), unclear))
    return found


def _follows(kernel: Kernel, following: Following) -> Following:
    if isinstance(kernel.layer, keras.layers.SimpleRNNCell):
        activation = kernel.layer.activation
        return Following(activation, activation_name(activation))
    if kernel.role == "embedding":
        return Following("linear", "embedding and output" if kernel.tied else "embedding")
    separable = isinstance(kernel.layer, keras.layers.SeparableConv1D | keras.layers.SeparableConv2D)
    if separable and kernel.role == "depthwise":
        return Following("linear", "before the pointwise kernel")
    return following
