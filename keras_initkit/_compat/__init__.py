"""Private names of Keras, TensorFlow, JAX and PyTorch: a function for each, which says why, and what else would do.

Nobody promises these names, so tests/compat/test_names.py fails when one moves. At run time a name that has moved
costs a warning and what the function's docstring says under "if it moves", never an error. Frameworks are imported
inside the functions: only the active one may be loaded.
"""

from keras_initkit._compat._jax import jax_is_elsewhere, jax_jit_options, jax_trace
from keras_initkit._compat._keras_names import name_initializers
from keras_initkit._compat._keras_tracing import (
    TRACKERS,
    VARIABLE,
    auto_names_kept,
    calls_in_graphs,
    describe_error,
    graph_nodes_off,
    seed_generator,
    set_seed_generator,
    symbolic_call,
    tracked_layers,
)
from keras_initkit._compat._keras_training import (
    copy_keras_mask,
    fresh_compile_loss,
    is_compiled_with_loss,
    keras_leaves_logits,
    keras_logits,
    metric_functions,
    optimized_variables,
    set_keras_logits,
)
from keras_initkit._compat._tensorflow import (
    tensorflow_autograph,
    tensorflow_convolution_replaced,
    tensorflow_function_like,
    tensorflow_functions_eager,
    tensorflow_identity,
    tensorflow_is_compiled_by_xla,
    tensorflow_is_deterministic,
    tensorflow_memory_optimizer_off,
)
from keras_initkit._compat._torch import torch_before_compilation, torch_is_in_backward_pass, torch_random_state_kept

__all__ = [
    "TRACKERS",
    "VARIABLE",
    "auto_names_kept",
    "calls_in_graphs",
    "copy_keras_mask",
    "describe_error",
    "fresh_compile_loss",
    "graph_nodes_off",
    "is_compiled_with_loss",
    "jax_is_elsewhere",
    "jax_jit_options",
    "jax_trace",
    "keras_leaves_logits",
    "keras_logits",
    "metric_functions",
    "name_initializers",
    "optimized_variables",
    "seed_generator",
    "set_keras_logits",
    "set_seed_generator",
    "symbolic_call",
    "tensorflow_autograph",
    "tensorflow_convolution_replaced",
    "tensorflow_function_like",
    "tensorflow_functions_eager",
    "tensorflow_identity",
    "tensorflow_is_compiled_by_xla",
    "tensorflow_is_deterministic",
    "tensorflow_memory_optimizer_off",
    "torch_before_compilation",
    "torch_is_in_backward_pass",
    "torch_random_state_kept",
    "tracked_layers",
]
