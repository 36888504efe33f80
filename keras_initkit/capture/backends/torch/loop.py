"""One call of a training step that is written by hand, measured on the PyTorch backend.

A step runs as it is written, with hooks. One that `torch.compile` has compiled stays as it is: what is read of it is a
pass of the function that was compiled, before it, operation by operation and without optimizers, and with weights,
gradients and random numbers put back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from keras_initkit._compat import torch_before_compilation
from keras_initkit._threads import replaced_in_this_thread
from keras_initkit.capture.backends.torch.reading import TorchReading, undone
from keras_initkit.capture.step._loop import LoopMeter


class TorchLoopMeter(TorchReading, LoopMeter):
    """Measures single calls of a training step; see `LoopMeter`."""

    def _run_measured(self, step: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        with self._unharmed("the layers"):
            self._resolve_taps()
        original = torch_before_compilation(step)

        def train() -> Any:
            if original is None:
                with self._tapped():
                    return step(*args, **kwargs)
            models = list(self._models.values())
            with self._unharmed("the step"), undone(models), self._without_updates(), self._tapped():
                original(*args, **kwargs)
            return step(*args, **kwargs)

        return self._measure_step(None, train, lambda weight: weight.value.detach())

    @contextlib.contextmanager
    def _tapped(self) -> Iterator[None]:
        """As elsewhere, and the scale of PyTorch's own `GradScaler` is divided out of gradients of signals.

        It divides it out of weights' gradients itself, before it calls the optimizer.
        """

        def watched(scale: Callable) -> Callable:
            def method(scaler: Any, *args: Any, **kwargs: Any) -> Any:
                captured, factor = self._captured, scaler.get_scale() if scaler.is_enabled() else 1.0
                if captured is not None:
                    captured.unscale = {**captured.unscale, id(None): lambda gradient: gradient / factor}
                return scale(scaler, *args, **kwargs)

            return method

        with super()._tapped(), replaced_in_this_thread(torch.amp.GradScaler, "scale", watched):
            yield


LOOP_METER = TorchLoopMeter
