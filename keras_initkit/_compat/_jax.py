"""Private names of JAX."""

from __future__ import annotations

import collections
from typing import Any

from keras_initkit._compat._moved import unless_moved

_STATES: collections.deque[Any] = collections.deque(maxlen=100)  # those that `_current_trace` has returned


def jax_trace(tensors: Any) -> Any:
    """Returns the trace that tensors belong to; `None` for arrays.

    JAX notices a tensor that left its trace only when the program is complete. If it moves: the trace that is running
    is returned, which differs for tensors that nothing differentiates within a program that is differentiated.
    """
    import jax

    tracers = [x for x in jax.tree_util.tree_leaves(tensors) if isinstance(x, jax.core.Tracer)]
    if not tracers:
        return None
    with unless_moved("jax.core.Tracer._trace", "a measured step leaves out what depends on no trainable weight"):
        return tracers[0]._trace
    return _current_trace()


def _current_trace() -> Any:
    """Returns an object for the trace that is running, the same one each time; JAX makes equal ones."""
    state: Any = object()
    with unless_moved("jax.extend.core.get_opaque_trace_state", "a measured step reads no outputs"):
        from jax.extend.core import get_opaque_trace_state

        state = get_opaque_trace_state(convention="flax")
    known = next((each for each in _STATES if each == state), None)
    if known is None:
        _STATES.append(state)
    return state if known is None else known
