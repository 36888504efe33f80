"""Private names of TensorFlow, and of Keras on it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

from keras_initkit._compat._moved import unless_moved
from keras_initkit._threads import replaced_in_this_thread


@contextlib.contextmanager
def tensorflow_memory_optimizer_off() -> Iterator[None]:
    """Has functions that are called here run as graphs that TensorFlow's memory optimizer has left alone.

    No public name leads to the options of a function's call; `tf.config.optimizer` switches the optimizer for the
    whole process, which the steps that are not measured would see. If it moves: the optimizer stays on.
    """
    import tensorflow as tf

    here: Any = None
    usual: Any = None
    with unless_moved(
        "tensorflow.python.eager.context.context",
        "a measured step that nearly fills the memory may add up sums in another order, and differ in the last bits",
    ):
        from tensorflow.python.eager import context

        here = context.context()
        usual = here.function_call_options
        config = tf.compat.v1.ConfigProto.FromString(usual.config_proto_serialized)
        rewriting = config.graph_options.rewrite_options
        rewriting.memory_optimization = rewriting.NO_MEM_OPT
        changed = copy.copy(usual)
        changed.config_proto_serialized = config
        here.function_call_options = changed
    try:
        yield
    finally:
        if usual is not None:
            here.function_call_options = usual


def tensorflow_identity(tensor: Any, backward: Callable[[Any], list[Any]]) -> Any:
    """Returns a tensor of the same values, whose gradient goes through `backward`.

    This is what `tf.custom_gradient` is made of. That one keeps its argument until the backward pass, which would hold
    every pre-activation, and double the memory of a pass. If it moves: `tf.custom_gradient` is taken.
    """
    import tensorflow as tf

    with unless_moved("tensorflow.python.eager.record", "a probe takes up to twice as much memory"):
        from tensorflow.python.eager import record

        with record.stop_recording():
            result = tf.identity(tensor)
        record.record_operation("Observed", [result], [tensor], backward)
        return result

    @tf.custom_gradient
    def identity(x: Any) -> tuple[Any, Callable]:
        return tf.identity(x), lambda gradient: backward(gradient)[0]

    return identity(tensor)


@contextlib.contextmanager
def tensorflow_convolution_replaced(change: Callable[[Callable], Callable]) -> Iterator[None]:
    """Has `change(convolution)` run in place of `keras.ops.conv` on tensors of TensorFlow, in this thread.

    Layers have no common method around it. If it moves: convolutions in groups again have no gradient on a CPU.
    """
    with contextlib.ExitStack() as stack:
        with unless_moved(
            "keras.src.backend.tensorflow.nn.conv", "models with convolutions in groups cannot be probed on a CPU"
        ):
            try:
                from keras.src.backend.tensorflow.ops import nn  # from Keras 3.16 on
            except ImportError:
                from keras.src.backend.tensorflow import nn

            stack.enter_context(replaced_in_this_thread(nn, "conv", change))
        yield


@contextlib.contextmanager
def tensorflow_functions_eager(eager: bool) -> Iterator[None]:
    """Has TensorFlow's functions run operation by operation, or compiled, in this thread.

    `tf.config.run_functions_eagerly` is for all threads, those that train included. If it moves: that is called.
    """
    import tensorflow as tf

    replaced = False
    with contextlib.ExitStack() as stack:
        with unless_moved(
            "tensorflow.python.eager.polymorphic_function.eager_function_run.RUN_FUNCTIONS_EAGERLY",
            "while a probe runs, the functions of all other threads run eagerly too",
        ):
            from tensorflow.python.eager.polymorphic_function import eager_function_run

            stack.enter_context(replaced_in_this_thread(eager_function_run, "RUN_FUNCTIONS_EAGERLY", lambda _: eager))
            replaced = True
        if not replaced:
            stack.callback(tf.config.run_functions_eagerly, tf.config.functions_run_eagerly())
            tf.config.run_functions_eagerly(eager)
        yield


def tensorflow_function_like(function: Any, python_function: Callable) -> Callable:
    """Returns a `tf.function` of another Python function with the options of `function`.

    If it moves: the options are those by default.
    """
    import tensorflow as tf

    with unless_moved("tensorflow.function._clone", "`watch` measures a function without its own options"):
        return function._clone(python_function)
    return tf.function(python_function)


def tensorflow_is_compiled_by_xla(function: Any) -> bool:
    """Returns whether a `tf.function` has `jit_compile=True`. If it moves: it is taken not to."""
    with unless_moved("tensorflow.function._jit_compile", "`watch` may fail on functions that XLA compiles"):
        return bool(function._jit_compile)
    return False


def tensorflow_autograph(function: Any) -> Callable:
    """Returns the Python function of a `tf.function` as AutoGraph converts it, if it does.

    Nothing public converts what is called in a function that itself is left alone, but `tf.autograph.to_graph`, which
    knows no options. If it moves: that is taken.
    """
    import tensorflow as tf

    with unless_moved("tensorflow.python.autograph.impl.api.tf_convert", "`watch` converts a step by other rules"):
        from tensorflow.python.autograph.core import ag_ctx
        from tensorflow.python.autograph.impl import api

        if not function._autograph:
            return function.python_function
        return api.tf_convert(function.python_function, ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED))
    return tf.autograph.to_graph(function.python_function)


def tensorflow_is_deterministic() -> bool:
    """Returns whether `tf.config.experimental.enable_op_determinism` was called; nothing public says so.

    If it moves: it is taken to have been.
    """
    with unless_moved(
        "tensorflow.python.framework.config.is_op_determinism_enabled",
        "nothing says that training on a GPU differs from run to run",
    ):
        from tensorflow.python.framework import config

        return bool(config.is_op_determinism_enabled())
    return True
