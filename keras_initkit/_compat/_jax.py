"""Private names of JAX."""

from __future__ import annotations

import collections
import functools
from typing import Any

from keras_initkit._compat._moved import unless_moved, warn_moved

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


def jax_is_elsewhere(tensor: Any, scope: Any) -> bool:
    """Returns whether a tensor is computed in another trace than `scope`, of a function compiled inside it say.

    Derivatives are not another: they are taken of what is computed in the scope. If it moves: nothing is elsewhere.
    """
    import jax

    if not _knows_primal():
        warn_moved("jax.core.Tracer.primal", "a function compiled inside a step, and first called in one, is read too")
        return False
    while isinstance(tensor, jax.core.Tracer):
        primal = getattr(tensor, "primal", None)
        if primal is None:
            return getattr(tensor, "_trace", scope) is not scope
        tensor = primal
    return False


@functools.cache
def _knows_primal() -> bool:
    """Returns whether what stands for a tensor in a derivative holds the tensor."""
    import jax

    found: list[bool] = []

    def ask(x: Any) -> Any:
        found.append(getattr(x, "primal", None) is not None)
        return x

    jax.jvp(ask, (1.0,), (1.0,))
    return all(found)


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


def jax_jit_options(function: Any, donated: bool = False) -> dict[str, Any]:
    """Returns which arguments of a function that `jax.jit` has compiled are static, as `jax.jit` takes them.

    Args:
        donated: Boolean. Whether to return those that are donated too.

    If it moves: none is taken to be.
    """
    with unless_moved("jax.jit(f)._jit_info", "`watch` cannot measure functions with static arguments"):
        info = function._jit_info
        names = ["static_argnums", "static_argnames", *(["donate_argnums", "donate_argnames"] if donated else [])]
        return {name: getattr(info, name) or None for name in names}
    return {}
