"""One training step, measured from inside, on the TensorFlow backend.

`fit` looks up `model.train_function` at every step. For a measured step it finds a second function there,
which Keras built around the same `train_step`; while that is traced, the layers' `call` and the optimizer's
`apply` are wrapped, so that outputs and gradients can be read where they already are. Other steps run the
function that Keras compiled, untouched.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_initkit._compat import copy_keras_mask, keras_logits, set_keras_logits, tensorflow_memory_optimizer_off
from keras_initkit.capture._hooks import replaced
from keras_initkit.capture.backends import is_signal
from keras_initkit.capture.backends.tensorflow._graph import is_inside, unfused_copy, warn_of_draws
from keras_initkit.capture.step._captured import Unscale
from keras_initkit.capture.step._meter import FindLayers, StepMeter
from keras_initkit.capture.step._reduction import MeasurementSpec, reduce_taps
from keras_initkit.statistics._ops import under_xla
from keras_initkit.statistics._tap import Tap


class TensorFlowStepMeter(StepMeter):
    """Measures single training steps of `model`; see `StepMeter`.

    Under `tf.distribute.MirroredStrategy` the figures are those of the global batch.

    Raises:
        ValueError: Under a distribution strategy of several replicas that is another.
    """

    def __init__(self, model: keras.Model, find_layers: FindLayers, spec: MeasurementSpec):
        strategy = model.distribute_strategy
        self._replicas = strategy.num_replicas_in_sync
        multi_worker = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        # TensorFlow's own class has another name.
        name = "MultiWorkerMirroredStrategy" if multi_worker else type(strategy).__name__
        if multi_worker or (self._replicas > 1 and not isinstance(strategy, tf.distribute.MirroredStrategy)):
            raise ValueError(
                f"LayerStatsCallback: the model trains on {self._replicas} replicas under "
                f"{name}, expected tf.distribute.MirroredStrategy or one replica"
                f"{_MULTI_WORKER if multi_worker else ''}. Train under one of these to measure layers, or leave "
                "the callback out."
            )
        super().__init__(model, find_layers, spec)
        self._waited = False
        self._plain: Any = None
        self._structure: Any = None  # of a batch
        self._instrumented: dict[bool, Callable] = {}  # with histograms, and without

    def _invalidate(self) -> None:
        self._instrumented = {}

    def _run_measured(self, plain: Any, iterator: Any) -> Any:
        if plain is not self._plain:
            self._plain, self._instrumented = plain, {}
        if self._histograms not in self._instrumented:
            measured = None
            with self._unharmed("the step"):
                measured = self._build(iterator)
            if measured is None:
                return plain(iterator)
            self._instrumented[self._histograms] = measured
        # Keras up to 3.6 looks `train_step` up when it traces, later versions when they make the function.
        # Replicas trace in threads by turns, so their layers are wrapped once for all.
        model, is_graph = self._model, not (self._model.run_eagerly or tf.config.functions_run_eagerly())
        tapped = self._tapped() if self._replicas > 1 else contextlib.nullcontext()
        # Where TensorFlow expects a graph to fill a processor's memory, which it takes for 256 MB, its memory optimizer
        # (memory_optimizer.cc) has sums of three tensors and more added up one by one, as they come. A step that is
        # measured takes a little more memory than the plain one, which may be just enough.
        try:
            with replaced(model, "train_step", self._measured_step), tapped, tensorflow_memory_optimizer_off():
                logs, self._matrix, batch = self._instrumented[self._histograms](iterator)
        except tf.errors.OpError:  # of the step as it runs
            raise
        except Exception as error:
            if not is_graph:
                raise
            self._failure = self._failure or ("the step", error)  # while it was traced: nothing has run
            return plain(iterator)
        tensors = iter(batch)
        self._data = keras.tree.map_structure(lambda is_given: next(tensors) if is_given else None, self._structure)
        return logs

    def _build(self, iterator: Any) -> Callable | None:
        """Returns the training function of Keras, around a `train_step` that also returns the statistics.

        The layers of a subclassed model are built, and then known, once its step has been traced; where it
        cannot be traced without being run (eagerly, or on a Python iterator), the step is not measured.
        """
        model, self._train_step = self._model, self._model.train_step
        self._make_variables(iterator)
        if hasattr(self._plain, "get_concrete_function") and isinstance(iterator, tf.data.Iterator):
            # Keras up to 3.6, whose TensorBoard callback expects the first batch to have traced it.
            self._plain.get_concrete_function(iterator)
        if not model.built or not all(layer.built for layer in model.layers):
            eager = model.run_eagerly or tf.config.functions_run_eagerly()
            if not eager and isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator):
                tf.function(self._plain_step, autograph=False).get_concrete_function(iterator.element_spec)
            elif not self._waited:
                self._waited = True  # for a step in which all layers are built, but those that are never called
                return None
        if not self._instrumented:
            self._resolve_taps()
        with replaced(model, "train_step", self._measured_step):
            try:
                model.train_function = None  # not `force=True`: a method of the user's own may take no argument
                model.make_train_function()
                return model.train_function
            finally:
                model.train_function = self._plain

    def _make_variables(self, iterator: Any) -> None:
        """Makes what Keras would make while it traces the step. TensorFlow traces a step that makes variables twice.

        Of replicas it also runs such a step under a condition, in which TensorFlow 2.16 loses what they pass to
        conditions of their own; later versions of Keras do the same as this then.
        """
        model, optimizer = self._model, self._model.optimizer
        own = getattr(self._train_step, "__func__", None) is keras.Model.train_step
        if not model.built or not model.trainable_variables or optimizer is None or not (own or self._replicas > 1):
            return
        if not optimizer.built:
            scope = keras.name_scope(optimizer.name, caller=optimizer) if own else contextlib.nullcontext()
            with model.distribute_strategy.scope(), scope:
                optimizer.build(model.trainable_variables)
        if own and isinstance(iterator, tf.data.Iterator) and not all(_is_built(metric) for metric in model.metrics):
            _make_metrics(model, iterator.element_spec)

    def _plain_step(self, data: Any) -> Any:
        # Keras hands the `None` among the data over as an empty optional.
        data = tf.nest.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, data)
        return self._model.distribute_strategy.run(self._train_step, args=(data,))

    def _measured_step(self, data: Any) -> tuple[Any, tf.Tensor, tuple[tf.Tensor, ...]]:
        def train() -> Any:
            with self._tapped() if self._replicas == 1 else contextlib.nullcontext():
                return self._train_step(data)

        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        with under_xla(self._model.jit_compile and not self._model.run_eagerly):
            logs, matrix = self._measure_step(graph, train, lambda weight: tf.convert_to_tensor(weight.value))
        if graph is not None:
            warn_of_draws(graph)
        return logs, matrix, self._batch_of(data)

    def _batch_of(self, data: Any) -> tuple[tf.Tensor, ...]:
        """Returns the tensors of a batch, which the step then returns too: it computes nothing for that.

        None come from several replicas or out of a loop over steps, where each batch may have another size.
        """
        leaves = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
        known = all(isinstance(leaf, tf.Tensor) for leaf in leaves)
        if not known or self._replicas > 1 or (self._model.steps_per_execution or 1) > 1:
            self._structure = None
            return ()
        self._structure = keras.tree.map_structure(lambda leaf: leaf is not None, data)
        return tuple(leaves)

    def _is_readable(self, tensor: tf.Tensor, scope: Any) -> bool:
        return not is_inside(tensor, scope)

    def _has_whole_gradient(self, output: tf.Tensor, outputs: list[Any], inputs: Any, added_loss: bool) -> bool:
        several = len({id(x) for x in outputs if is_signal(x)}) > 1
        return not (added_loss or (several and tf.is_symbolic_tensor(output) and output.consumers()))

    def _read(self, tensor: tf.Tensor, tap: Tap, on_value: Unscale, on_gradient: Unscale | None) -> tf.Tensor:
        captured = self._captured
        if captured is None or is_inside(tensor, captured.scope):
            return tensor
        on_value(tensor)
        if on_gradient is None:
            return tensor
        observed = functools.partial(_observed, on_gradient=on_gradient)
        # An identity, which TensorFlow removes before it fuses.
        return _with_keras_marks(tensor, observed) if tap.kind == "output" else observed(tensor)

    def _dense(self, gradient: Any) -> tf.Tensor:
        # An embedding's gradient is sparse; rows that no example used have a gradient of zero.
        return tf.convert_to_tensor(gradient)

    def _loss_unscaling(self, optimizer: Any) -> Unscale:
        unscale, one = super()._loss_unscaling(optimizer), tf.ones(())
        if unscale(one) is one:
            return unscale
        return lambda gradient: unscale(unfused_copy(gradient, is_gradient=True, is_complete=False))

    def _finished(self, tap: Tap, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        if tap.kind in ("weight", "weight_update"):
            return tensors
        # Only now is it known what else reads them.
        return [unfused_copy(x, is_gradient=tap.kind.endswith("gradient")) for x in tensors]

    def _reduce(self, seen: Mapping[Tap, Sequence[Any]]) -> tf.Tensor:
        if self._replicas == 1:
            return super()._reduce(seen)
        replica = tf.distribute.get_replica_context()
        summed = {
            tap: [replica.all_reduce("SUM", x) for x in tensors]
            for tap, tensors in seen.items()
            if tap.kind == "weight_gradient"
        }
        over_replicas = functools.partial(replica.all_reduce, "SUM")
        options = self._limits, self._sample_size, self._histograms, over_replicas, self._rectified or ()
        rows = reduce_taps({**seen, **summed}, *options)
        return replica.all_gather(rows[None], axis=0)


def _is_built(metric: keras.Metric) -> bool:
    return getattr(metric, "built", True)  # what `compile` was given is; what it has yet to make of a name is not


def _make_metrics(model: keras.Model, element_spec: Any) -> None:
    """Traces what updates the metrics, and does not run it."""
    outputs: list[Any] = getattr(model, "outputs", None) or []
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(element_spec)
    plain = isinstance(y, tf.TensorSpec) and isinstance(sample_weight, tf.TensorSpec | None)
    if plain and len(outputs) == 1 and type(model).compute_metrics is keras.Model.compute_metrics:
        prediction = tf.TensorSpec(outputs[0].shape, outputs[0].dtype)
        update = tf.function(model.compute_metrics, autograph=False)
        update.get_concrete_function(x, y, prediction, sample_weight)


# What becomes of the training itself there, with or without a callback.
_MULTI_WORKER = " (Keras 3 does not train under MultiWorkerMirroredStrategy: keras issue 20585)"


def _observed(tensor: tf.Tensor, on_gradient: Unscale) -> tf.Tensor:
    """Returns the same values; the gradient that comes back through them is read."""

    @tf.custom_gradient
    def identity(tensor: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def backward(gradient: tf.Tensor) -> tf.Tensor:
            on_gradient(tf.convert_to_tensor(gradient))
            return gradient

        return tf.identity(tensor), backward

    return identity(tensor)


def _with_keras_marks(output: tf.Tensor, observed: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Returns `observed(output)`, which Keras takes for the same tensor.

    Keras' losses look for the logits behind a softmax or sigmoid output: in an attribute that its own
    activations set, or, in a graph, as the input of an op of that type. The first is carried over, and the
    gradient that comes back through the logits is the layer's. The second has no place on another tensor,
    so an output of `tf.nn.softmax` or `tf.nn.sigmoid` stays as it is, and its gradient is not read.
    """
    logits = keras_logits(output)
    if logits is None and tf.is_symbolic_tensor(output) and output.op.type in ("Softmax", "Sigmoid"):
        return output
    result = observed(output)
    if logits is not None:
        set_keras_logits(result, observed(logits))
    copy_keras_mask(output, result)  # of a layer that sets its mask by itself
    return result


STEP_METER = TensorFlowStepMeter
