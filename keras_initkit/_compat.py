"""Private names of Keras, TensorFlow, JAX and PyTorch: a function for each, which says why, and what else would do.

Nobody promises these names, so tests/test_compat.py fails when one of them moves. Frameworks are imported inside the
functions: only the active one may be loaded.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_initkit._threads import replaced_in_this_thread

# Keras

# What every variable is an instance of. Until Keras 3.5 `keras.Variable` is a subclass of it, which layers do not use.
VARIABLE: type = next((base for base in keras.Variable.__mro__ if base.__name__ == "KerasVariable"), keras.Variable)


def tracked_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the direct sublayers of a layer, as Keras tracks them.

    Keras shows the sublayers of a model (`Model.layers`) but not those of a layer, a MultiHeadAttention's say. This
    list is what `Model.layers` and `Layer.weights` read. If it moves: walk over `vars(layer)`.
    """
    return layer._layers


def describe_error(error: BaseException) -> str:
    """Returns the kind of an error and the first line of its message, less what Keras puts before a layer's own.

    If its wording moves: its sentence is shown, which names the layer alone.
    """
    message = re.sub(r"^Exception encountered when calling .*\n*|\x1b\[\d*m", "", str(error))
    return f"{type(error).__name__}: {message.partition(chr(10))[0]}"


def symbolic_call(layer: keras.Layer) -> Callable:
    """Returns what runs a layer on symbolic tensors: its `call`, but for graphs in early versions of Keras.

    There the `call` of a Functional model makes backend tensors of its inputs. If the names move: early versions are
    what they are, and later ones have `keras.ops.convert_to_tensor` for symbolic tensors too.
    """
    from keras.src.ops import core

    graph = getattr(layer, "_functional", layer)  # of a Sequential model
    if hasattr(core, "ConvertToTensor") or not hasattr(graph, "_run_through_graph"):
        return layer.call
    return lambda inputs, **options: graph._run_through_graph(inputs, lambda operation: operation)


@contextlib.contextmanager
def graph_nodes_off() -> Iterator[None]:
    """Has this thread's symbolic calls leave no node in the layers that are called, and take away no loss of theirs.

    Keras notes each symbolic call of a layer in the layer, which then holds the tensors for good, and refuses outputs
    that are no tensors; each call of a model empties the list of losses that its last call has left. No public name
    keeps it from either. If they move: take the nodes away afterwards (`_inbound_nodes`, `_outbound_nodes`), and put
    the losses back (`_losses`).
    """
    from keras.src.layers import layer
    from keras.src.ops import operation

    def nothing(_: Callable) -> Callable:
        return lambda *args, **kwargs: None

    with contextlib.ExitStack() as stack:
        for place in (layer, operation):
            if hasattr(place, "Node"):  # until Keras 3.10 the former has none
                stack.enter_context(replaced_in_this_thread(place, "Node", nothing))
        stack.enter_context(replaced_in_this_thread(keras.Layer, "_clear_losses", nothing))
        yield


@contextlib.contextmanager
def auto_names_kept() -> Iterator[None]:
    """Has layers that are made afterwards get the names that they would get had nothing been made in here.

    Keras numbers the names of layers and operations by a counter that only grows. If it moves: names of later layers
    would be numbered higher.
    """
    from keras.src.backend.common import global_state

    key = "object_name_uids"
    counts = global_state.get_global_attribute(key)
    before = None if counts is None else dict(counts)
    try:
        yield
    finally:
        counts = global_state.get_global_attribute(key)
        if counts is not None:
            counts.clear()
            counts.update(before or {})


def inputs_structure(model: keras.Model) -> Any:
    """Returns the list, dictionary or tensor in which a Functional model takes its inputs; `None` for another model.

    Keras shows `Model.inputs`, a flat list, but not the dictionary's keys. `Functional._inputs_struct` is what it
    flattens inputs by. If it moves: follow `Functional.call`.
    """
    return getattr(model, "_inputs_struct", None)


def seed_generator() -> keras.random.SeedGenerator | None:
    """Returns Keras' global generator of seeds; `None` where nothing has needed it yet.

    `keras.random` makes it when it is first used, so no public name tells whether there is one. If it moves: a probe
    in a process that has drawn nothing would leave a generator behind; draw from one before the first probe.
    """
    from keras.src.backend.common import global_state

    return global_state.get_global_attribute("global_seed_generator")


def set_seed_generator(generator: keras.random.SeedGenerator | None) -> None:
    """Makes `generator` Keras' global generator of seeds; see `seed_generator`."""
    from keras.src.backend.common import global_state

    global_state.set_global_attribute("global_seed_generator", generator)


def metric_functions(model: keras.Model) -> list[Callable]:
    """Returns the functions that a model was compiled with as metrics.

    `Model.metrics` shows what Keras has made of them once it has trained, and `get_compile_config` their names. If it
    moves: no metric is judged.
    """
    given = getattr(getattr(model, "_compile_metrics", None), "_user_metrics", None)
    flat = keras.tree.flatten(given)
    return [each for each in flat if callable(each) and not isinstance(each, keras.metrics.Metric)]


def is_compiled_with_loss(model: keras.Model) -> bool:
    """Returns whether training has a loss of its labels. If the name moves: ask `model.loss`."""
    return getattr(model, "_compile_loss", None) is not None


def fresh_compile_loss(model: keras.Model, loss: Any) -> tuple[str, Any]:
    """Returns the attribute that holds a model's compiled loss, and a new one for it that nobody has built yet.

    `CompileLoss` matches losses with outputs as `fit` does; it is built by its first call, so the model's own must not
    be called. No public name runs the loss of `compile`. If it moves: match losses and outputs by hand.

    Args:
        loss: Loss, or a structure of losses, as `compile` takes them; `None` is the one the model is compiled with, if
            there is one.
    """
    from keras.src.trainers.compile_utils import CompileLoss

    if loss is not None:
        return "_compile_loss", CompileLoss(loss, output_names=getattr(model, "output_names", None))
    if not is_compiled_with_loss(model):  # early versions have no such attribute then, and ask for it
        return "_compile_loss", None
    like = model._compile_loss
    return "_compile_loss", CompileLoss(like._user_loss, like._user_loss_weights, output_names=like.output_names)


def optimized_variables(optimizer: Any) -> list[Any]:
    """Returns the variables that a Keras optimizer was built for; an empty list before that.

    It is what `optimizer.apply(grads)` and `stateless_apply` take values to be of, by their places. If it moves: steps
    that are written by hand are taken to train all the trainable variables of the models, in their order.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under loss scaling
    return list(getattr(optimizer, "_trainable_variables", None) or ())


def copy_keras_mask(source: Any, target: Any) -> None:
    """Gives a tensor the mask that Keras has set on another tensor of the same values.

    Keras' layers and losses look there for the mask. From 3.7 on Keras has functions for it: on JAX, whose arrays take
    no attributes, it keeps masks in a table of its own. If it moves: masked models would lose their mask under a
    probe; wrap `keras.Layer.compute_mask` instead.
    """
    try:
        from keras.src.backend import get_keras_mask, set_keras_mask
    except ImportError:
        mask = getattr(source, "_keras_mask", None)
        if mask is not None:
            with contextlib.suppress(AttributeError):
                target._keras_mask = mask
        return
    mask = get_keras_mask(source)
    if mask is not None:
        set_keras_mask(target, mask)


def keras_logits(tensor: Any) -> Any:
    """Returns the logits that Keras' softmax or sigmoid has left on its output for the loss; `None` without any.

    If it moves: gradients of such outputs would no longer be read at the logits.
    """
    return getattr(tensor, "_keras_logits", None)


def set_keras_logits(tensor: Any, logits: Any) -> None:
    """Sets what `keras_logits` returns."""
    tensor._keras_logits = logits


# TensorFlow


@contextlib.contextmanager
def tensorflow_memory_optimizer_off() -> Iterator[None]:
    """Has functions that are called here run as graphs that TensorFlow's memory optimizer has left alone.

    No public name leads to the options of a function's call. If it moves: `tf.config.optimizer` switches the
    optimizer for the whole process, which the steps that are not measured would see.
    """
    import tensorflow as tf
    from tensorflow.python.eager import context

    here = context.context()
    usual = here.function_call_options
    config = tf.compat.v1.ConfigProto.FromString(usual.config_proto_serialized)
    rewriting = config.graph_options.rewrite_options
    rewriting.memory_optimization = rewriting.NO_MEM_OPT
    here.function_call_options = copy.copy(usual)
    here.function_call_options.config_proto_serialized = config
    try:
        yield
    finally:
        here.function_call_options = usual


def tensorflow_identity(tensor: Any, backward: Callable[[Any], list[Any]]) -> Any:
    """Returns a tensor of the same values, whose gradient goes through `backward`.

    This is what `tf.custom_gradient` is made of. That one keeps its argument until the backward pass, which would hold
    every pre-activation, and double the memory of a pass. If it moves: take `tf.custom_gradient`.
    """
    import tensorflow as tf
    from tensorflow.python.eager import record

    with record.stop_recording():
        result = tf.identity(tensor)
    record.record_operation("Observed", [result], [tensor], backward)
    return result


def tensorflow_convolution_replaced(change: Callable[[Callable], Callable]) -> contextlib.AbstractContextManager[None]:
    """Has `change(convolution)` run in place of `keras.ops.conv` on tensors of TensorFlow, in this thread.

    Layers have no common method around it. If it moves: convolutions in groups would again have no gradient on a CPU.
    """
    from keras.src.backend.tensorflow import nn

    return replaced_in_this_thread(nn, "conv", change)


def tensorflow_functions_eager(eager: bool) -> contextlib.AbstractContextManager[None]:
    """Has TensorFlow's functions run operation by operation, or compiled, in this thread.

    `tf.config.run_functions_eagerly` is for all threads, those that train included. If it moves: call that.
    """
    from tensorflow.python.eager.polymorphic_function import eager_function_run

    return replaced_in_this_thread(eager_function_run, "RUN_FUNCTIONS_EAGERLY", lambda _: eager)


def tensorflow_function_like(function: Any, python_function: Callable) -> Callable:
    """Returns a `tf.function` of another Python function with the options of `function`.

    If it moves: the options of `tf.function` (`jit_compile`, `input_signature`) would be those by default.
    """
    return function._clone(python_function)


def tensorflow_is_compiled_by_xla(function: Any) -> bool:
    """Returns whether a `tf.function` has `jit_compile=True`. If the name moves: it is taken not to."""
    return bool(getattr(function, "_jit_compile", False))


def tensorflow_autograph(function: Any) -> Callable:
    """Returns the Python function of a `tf.function` as AutoGraph converts it, if it does.

    Nothing public converts what is called inside a function that is left alone, but the unconditional
    `tf.autograph.to_graph`. If it moves: take that.
    """
    from tensorflow.python.autograph.core import ag_ctx
    from tensorflow.python.autograph.impl import api

    if not getattr(function, "_autograph", True):
        return function.python_function
    return api.tf_convert(function.python_function, ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED))


# JAX


def jax_static_arguments(function: Any) -> dict[str, Any]:
    """Returns which arguments of a function that `jax.jit` has compiled are static, as `jax.jit` takes them.

    If it moves: none is taken to be, and a step that has some cannot be read.
    """
    info = getattr(function, "_jit_info", None)
    return {name: getattr(info, name, None) or None for name in ("static_argnums", "static_argnames")}


def jax_root_trace(tensor: Any) -> Any:
    """Returns the trace that a tensor is computed in, derivatives apart; `None` for arrays, in derivatives or not.

    If it moves: a function that a step has compiled by itself, and that was never called before, would be read too.
    """
    import jax

    while isinstance(tensor, jax.core.Tracer):
        trace, tensor = tensor._trace, getattr(tensor, "primal", None)
        if tensor is None:
            return trace
    return None


def jax_trace(tensors: Any) -> Any:
    """Returns the trace that tensors belong to; `None` for arrays.

    JAX notices a tensor that left its trace only when the program is complete. If it moves: ask
    `jax.core.get_opaque_trace_state` when a tensor is made.
    """
    import jax

    tracers = (x for x in jax.tree_util.tree_leaves(tensors) if isinstance(x, jax.core.Tracer))
    return next((x._trace for x in tracers), None)


# PyTorch


def torch_random_state_kept() -> contextlib.AbstractContextManager[None]:
    """Restores PyTorch's random numbers on the host, which symbolic calls draw from too; elsewhere does nothing.

    Nothing private, but a framework: what runs symbolic calls may import none.
    """
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.random.fork_rng(devices=[])


def torch_is_in_backward_pass() -> bool:
    """Returns whether a backward pass is running, in which checkpointing computes layers once more.

    PyTorch's own checkpointing asks it too. If it moves: a layer under `keras.RematScope` would be read twice.
    """
    import torch

    return torch._C._current_graph_task_id() != -1


def torch_before_compilation(function: Any) -> Callable | None:
    """Returns the function that `torch.compile` has made `function` of; `None` if it is none of those.

    If it moves: what is read inside a compiled step would make PyTorch compile it anew, and round otherwise.
    """
    return getattr(function, "_torchdynamo_orig_callable", None)
