"""One training step, measured from inside, on the PyTorch backend.

PyTorch runs a step as `train_step` says it, operation by operation. For a measured one the layers' `call` and the
optimizers' `apply` are wrapped, on the instances and for this step alone; a hook on each output sees the gradient
that comes back through it. A hook is no operation: the autograd graph is the one of a plain step.

Under `jit_compile=True` a wrapped layer would be compiled to another program, which rounds otherwise and draws other
random numbers. There the step that trains is the compiled one, as always, and what is read (but for the update) is a
pass before it: the same batch from the same state, operation by operation, with everything put back. Its Dropout
draws other masks than the compiled step's.
"""

from __future__ import annotations

from typing import Any

from keras_initkit.capture.backends.torch.reading import TorchReading, undone
from keras_initkit.capture.step._meter import StepMeter


class TorchStepMeter(TorchReading, StepMeter):
    """Measures single training steps of `model`; see `StepMeter`."""

    def _run_measured(self, plain: Any, data: Any) -> Any:
        with self._unharmed("the layers"):
            self._resolve_taps()  # at every measured step: the step before may have built a layer

        def train() -> Any:
            if not self._model.jit_compile:
                with self._tapped():
                    return plain(data)
            with self._unharmed("the step"), undone([self._model]), self._without_updates(), self._tapped():
                self._model.train_step(data[0])
            return plain(data)

        self._data = data[-1]
        logs, self._matrix = self._measure_step(None, train, lambda weight: weight.value.detach())
        return logs


STEP_METER = TorchStepMeter
