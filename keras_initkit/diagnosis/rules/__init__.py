"""The built-in rules, each registered beside the kinds of findings that can cause its own."""

from keras_initkit.diagnosis.rules import (  # noqa: F401  each module registers its rules
    _attention_blocks,
    _attention_masks,
    _attention_weights,
    _backward_signal,
    _equal_units,
    _forward_signal,
    _idle_units,
    _input_scale,
    _kernel_scale,
    _nonfinite_values,
    _overshooting_step,
    _signal_rank,
    _task_data,
    _task_heads,
    _task_labels,
    _task_stack,
    _task_targets,
    _task_training,
    _update_sizes,
)
