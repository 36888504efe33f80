"""watch: training steps that are written by hand, against `fit` and against themselves unwatched."""

import functools
import warnings

import keras
import numpy as np
import pytest
from helpers import events
from keras import layers as L
from loops_by_hand import BACKEND, KINDS, Loop, X, Y, loss_of, network

from keras_initkit import watch
from keras_initkit.callbacks import LayerStatsCallback, every
from keras_initkit.report._scalars import DEFAULT_STATISTICS

often = every(3, first=1)
A, B = "a", "b"
STATISTICS = [
    "activation_mean", "activation_variance", "activation_gradient_variance", "dead_units", "weight_variance",
    "weight_gradient_variance", "weight_update_variance", "update_ratio", "nonfinite",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_watching_changes_nothing(kind):
    plain, loop = Loop(kind), Loop(kind)
    with watch(loop.step, loop.model, None, often, optimizer=loop.optimizer) as step:
        watched = loop.train(step=step)
    np.testing.assert_equal(watched, plain.train())
    assert [report.step for report in step.reports] == [0, 3, 6]
    for report in step.reports:
        assert list(report.scalars()) == [f"{name}/{layer}" for name in STATISTICS for layer in (A, B)]


@pytest.mark.skipif(BACKEND != "jax", reason="the others measure inside the step in any case")
@pytest.mark.parametrize("kind", ["compiled", "donated"])
def test_measuring_in_the_program_that_trains(kind):
    apart, inside = Loop(kind), Loop(kind)
    exact = watch(apart.step, apart.model, None, often, sample_size=None, optimizer=apart.optimizer)
    other = watch(inside.step, inside.model, None, often, sample_size=None, optimizer=inside.optimizer, exact=False)
    (losses, weights), (expected, wanted) = inside.train(step=other), apart.train(step=exact)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for ours, theirs in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for ours, theirs in zip(other.reports, exact.reports, strict=True):
        np.testing.assert_allclose(list(ours.scalars().values()), list(theirs.scalars().values()), rtol=1e-3, atol=1e-9)


def test_sinks_get_what_is_logged():
    class Kept:
        def __init__(self):
            self.logged, self.alerts = {}, []

        def log(self, values, step):
            self.logged[step] = dict(values)

        def alert(self, finding):
            self.alerts.append(finding)

    loop, sink = Loop(), Kept()
    step = watch(loop.step, loop.model, None, often, sinks=[sink], optimizer=loop.optimizer)
    loop.train(step=step)
    assert sink.logged == {report.step: report.scalars(DEFAULT_STATISTICS) for report in step.reports}
    assert sink.alerts == step.findings == []


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="torch.compile")
def test_watching_a_function_that_pytorch_compiles():
    plain, loop = Loop("compiled"), Loop("compiled")
    step = watch(loop.step, loop.model, None, often, optimizer=loop.optimizer)
    np.testing.assert_equal(loop.train(step=step), plain.train())
    assert [report.step for report in step.reports] == [0, 3, 6]


@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_are_those_of_fit(kind):
    """The same steps by `fit`, which has tests of its own against NumPy."""
    loop = Loop(kind)
    step = watch(loop.step, loop.model, None, "batch", sample_size=None, optimizer=loop.optimizer)
    loop.train(3, step)
    model, callback = network(), LayerStatsCallback(None, "batch", sample_size=None, on_finding="ignore")
    model.compile(keras.optimizers.Adam(1e-2), loss_of, jit_compile=kind in ("xla", "donated"), run_eagerly=False)
    model.fit(X[:24], Y[:24], batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    for ours, expected in zip(step.reports, callback.reports, strict=True):
        assert ours.step == expected.step
        ours, expected = ours.scalars(), expected.scalars()
        assert ours.keys() == expected.keys()
        # Losses and their gradients are summed in another order here and there: some last bits of each figure.
        np.testing.assert_allclose(list(ours.values()), [expected[tag] for tag in ours], rtol=2e-4, atol=1e-9)


def test_a_log_holds_each_statistic_once(tmp_path):
    loop = Loop()
    with watch(loop.step, loop.model, tmp_path, often, histogram_freq=2, optimizer=loop.optimizer) as step:
        loop.train(step=step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train"]
    values = [(event.step, value) for event in events(tmp_path / "train") for value in event.summary.value]
    logged = {n: value.tensor.float_val[0] for n, value in values if value.tag == "activation_variance/a"}
    measured = {report.step: report.statistic("activation_variance")["a"] for report in step.reports}
    assert logged == pytest.approx(measured, rel=1e-6)
    # Histograms at the first measured step and the third.
    assert [n for n, value in values if value.tag == "activation/a"] == [0, 6]
    assert {value.tag for _, value in values if "variance/" in value.tag} == {
        f"{name}_variance/{layer}"
        for name in ("activation", "activation_gradient", "weight_gradient")
        for layer in "ab"
    }


class Pair:
    """A generator and a critic of the same form: two models and two optimizers in one step."""

    def __init__(self):
        self.models = {"maker": network("n"), "critic": network("n")}
        self.optimizers = {"critic": keras.optimizers.SGD(0.1), "maker": keras.optimizers.SGD(0.01)}
        for name, optimizer in self.optimizers.items():
            optimizer.build(self.models[name].trainable_variables)
        self.step = getattr(self, BACKEND)()

    def tensorflow(self):
        import tensorflow as tf

        @tf.function
        def step(x, y):
            for name in ("maker", "critic"):
                with tf.GradientTape() as tape:
                    loss = loss_of(y, self.models[name](x))
                weights = self.models[name].trainable_weights
                self.optimizers[name].apply(tape.gradient(loss, weights), weights)

        return step

    def torch(self):
        import torch

        def step(x, y):
            for name in ("maker", "critic"):
                self.models[name].zero_grad()
                loss_of(y, self.models[name](x)).backward()
                weights = list(self.models[name].trainable_weights)
                with torch.no_grad():
                    self.optimizers[name].apply([weight.value.grad for weight in weights])

        return step

    def jax(self):
        import jax

        self.weights = {name: [v.value for v in self.models[name].trainable_variables] for name in self.models}
        others = {name: [v.value for v in self.models[name].non_trainable_variables] for name in self.models}
        states = {name: [v.value for v in self.optimizers[name].variables] for name in self.models}

        @functools.partial(jax.jit, static_argnames=["names"])
        def step(weights, x, y, names):
            after = {}
            for name in names:

                def compute(own, name=name):
                    return loss_of(y, self.models[name].stateless_call(own, others[name], x)[0])

                gradients = jax.grad(compute)(weights[name])
                after[name], _ = self.optimizers[name].stateless_apply(states[name], gradients, weights[name])
            return after

        return step


def test_several_models_and_optimizers():
    pair = Pair()
    names = ["update_ratio", "weight_variance"]
    step = watch(pair.step, pair.models, None, "batch", statistics=names, optimizer=pair.optimizers)
    x, y = keras.ops.convert_to_tensor(X[:8]), keras.ops.convert_to_tensor(Y[:8])
    step(pair.weights, x, y, names=("maker", "critic")) if BACKEND == "jax" else step(x, y)
    (report,) = step.reports
    assert report.layers == ["maker/a", "maker/b", "critic/a", "critic/b"]
    # The same weights, gradients and data: rates of 0.01 and 0.1 are told apart by the update alone.
    ratio, variance = report.statistic("update_ratio"), report.statistic("weight_variance")
    for layer in "ab":
        assert ratio[f"critic/{layer}"] == pytest.approx(10 * ratio[f"maker/{layer}"], rel=1e-4)
        assert variance[f"critic/{layer}"] == pytest.approx(variance[f"maker/{layer}"], rel=1e-5)


def test_findings_name_the_model():
    loop = Loop()
    dead = network("dead")
    dead.layers[0].bias.assign(np.full(16, -100.0))
    loop.model = dead
    if BACKEND == "jax":
        loop.step = loop.jax("compiled")
    step = watch(loop.step, {"first": dead, "second": network()}, None, "batch", optimizer=loop.optimizer)
    with pytest.warns(UserWarning, match=r"watch: [\s\S]*dead_units in first/a"):
        loop.train(2, step)
    assert ("dead_units", "first/a") in [(finding.kind, finding.layer) for finding in step.findings]


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_scaled_loss_is_told_from_one_that_is_not(by_hand):
    """An optimizer that scales losses, in a step that has it do so and in one that has not (SGD, for equal steps)."""

    def figures(optimizer, scaled):
        loop = Loop("plain", optimizer=optimizer, loss=scaled)
        step = watch(loop.step, loop.model, None, "batch", sample_size=None, optimizer=optimizer, on_finding="ignore")
        loop.train(1, step)
        return step.reports[0]

    plain = figures(keras.optimizers.SGD(0.1), lambda optimizer, loss: loss).scalars()
    scaling = keras.optimizers.SGD(0.1, loss_scale_factor=1024.0)
    scaled = figures(scaling, lambda optimizer, loss: optimizer.scale_loss(loss) if by_hand else loss).scalars()
    told = [tag for tag in plain if "gradient" in tag]
    assert told == [
        f"{name}/{layer}" for name in ("activation_gradient_variance", "weight_gradient_variance") for layer in (A, B)
    ]
    for tag in told:
        assert scaled[tag] == pytest.approx(plain[tag], rel=1e-4), tag


def test_what_cannot_be_read_is_said_once():
    loop = Loop()
    inner = loop.step

    def around(*args):
        return inner(*args)

    if BACKEND == "torch":  # nothing is compiled: a model that the step does not use
        step = watch(around, network("another"), None, "batch", optimizer=loop.optimizer)
    else:
        loop.train(1)
        step = watch(around, loop.model, None, "batch", optimizer=loop.optimizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.train(3, step)
        step.close()
    said = [str(w.message) for w in caught if str(w.message).startswith("watch:")]
    assert len([message for message in said if "no layer of the models was seen" in message]) <= 1
    assert said


def test_without_an_optimizer_gradients_of_weights_are_missed():
    loop = Loop("plain")
    step = watch(loop.step, loop.model, None, "batch")
    loop.train(2, step)
    with pytest.warns(UserWarning, match="no gradient of a weight was seen"):
        step.close()
    assert "activation_gradient_variance/a" in step.reports[0].scalars()


def test_an_error_of_the_step_is_the_users():
    calls = []

    def step():
        calls.append(1)
        raise ZeroDivisionError("mine")

    watched = watch(step, network(), None, "batch", on_finding="ignore")
    with pytest.raises(ZeroDivisionError, match="mine"):
        watched()
    assert len(calls) == 1


@pytest.mark.parametrize(
    "piece", ["_resolve_taps", "_tapped_layer", "_read", "_begin_step", "_end_step", "_read_matrix"]
)
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]])
def test_an_error_while_measuring_costs_one_warning(kind, piece, monkeypatch):
    import importlib

    meter = importlib.import_module(f"keras_initkit.capture.backends.{BACKEND}.loop").LOOP_METER

    def broken(*args, **kwargs):
        raise TypeError("a private name was renamed")

    monkeypatch.setattr(meter, piece, broken)
    plain, loop = Loop(kind), Loop(kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step = watch(loop.step, loop.model, None, "batch", optimizer=loop.optimizer, on_finding="ignore")
        watched = loop.train(step=step)
        step.close()
    np.testing.assert_equal(watched, plain.train())
    said = [str(w.message) for w in caught if str(w.message).startswith("watch:")]
    assert len(said) == 1
    assert "could not be measured (TypeError: a private name was renamed)" in said[0]
    assert step.reports == []


def test_a_closed_step_goes_on_unmeasured():
    loop = Loop()
    step = watch(loop.step, loop.model, None, "batch", optimizer=loop.optimizer)
    loop.train(1, step)
    step.close()
    step.close()
    loop.train(2, step)
    assert [report.step for report in step.reports] == [0]


def test_the_picture_shows_the_measured_calls():
    loop = Loop()
    step = watch(loop.step, loop.model, None, "batch", optimizer=loop.optimizer)
    with pytest.raises(ValueError, match="plot: got a training without a measured step"):
        step.plot()
    loop.train(2, step)
    assert len(step.plot().axes) >= 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_step": 1}, "train_step: got 1, expected the function"),
        ({"model": "network"}, "model: got 'network', expected a Keras model, or a list"),
        ({"model": []}, r"model: got \[\], expected a Keras model"),
        ({"update_freq": "epoch"}, "update_freq: got 'epoch', expected 'batch', .* no epochs"),
        ({"update_freq": 0}, "update_freq: got 0, expected 'batch', a positive number"),
        ({"exact": "no"}, "exact: got 'no', expected True or False"),
        ({"optimizer": "adam"}, "optimizer: got 'adam', expected a Keras optimizer"),
        ({"statistics": ["attention_entropy"]}, "statistics: got 'attention_entropy', which takes the batch"),
        ({"on_finding": "shout"}, "on_finding: got 'shout'"),
        ({"layers": "c"}, "layers: got 'c', which matches no layer"),
        ({"keep": 1}, "keep: got 1"),
        ({"sinks": [print]}, "sinks: got .*, expected an object with the methods"),
        ({"sample_size": 0}, "sample_size: got 0"),
    ],
)
def test_wrong_arguments(changed, message):
    arguments = {"train_step": lambda: None, "model": network(), "log_dir": None, **changed}
    with pytest.raises(ValueError, match=message):
        watch(**arguments)


def test_layers_are_chosen_over_all_models():
    pair = Pair()
    step = watch(pair.step, pair.models, None, "batch", layers=["maker/a", "critic"], statistics=["weight_variance"])
    assert list(step._find_layers()) == ["maker/a", "critic/a", "critic/b"]


@pytest.mark.skipif(BACKEND == "jax", reason="a function of JAX takes built models")
def test_a_model_that_is_built_by_its_first_step():
    model = keras.Sequential([L.Dense(16, "relu", name="a"), L.Dense(3, name="b")])
    loop = Loop(model=model)
    step = watch(loop.step, model, None, "batch", optimizer=loop.optimizer)
    loop.train(3, step)
    # A function of TensorFlow is traced before it runs; what runs eagerly is known when it has run.
    assert [report.step for report in step.reports] == ([0, 1, 2] if BACKEND == "tensorflow" else [1, 2])


def bad_batch():
    x, y = keras.ops.convert_to_tensor(X[:4, :3]), keras.ops.convert_to_tensor(Y[:4])
    return x, y


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_step_does_not_end_the_measuring(kind):
    loop = Loop(kind)
    step = watch(loop.step, loop.model, None, "batch", optimizer=loop.optimizer)
    loop.train(1, step)
    with pytest.raises(Exception, match=r"(?i)shape|size|dimension|incompatible"):  # three inputs in place of six
        step(loop.state, bad_batch()) if BACKEND == "jax" else step(*bad_batch())
    loop.train(2, step)
    assert [report.step for report in step.reports] == [0, 2, 3]


def test_gradients_that_overflow_now_and_then_are_no_error():
    """As under loss scaling, which a loop may do unseen: once is nothing, three reports in a row are an error."""
    from keras_initkit.callbacks._run_diagnosis import RunDiagnosis
    from keras_initkit.signal import Moments, SignalReport, Tap, TensorStats

    def report(step, overflows):
        gradient = np.array([1.0, np.inf if overflows else 2.0])
        rows = [
            TensorStats(Tap("output", "a"), Moments.of(np.array([1.0, -1.0]))),
            TensorStats(Tap("weight_gradient", "a"), Moments.of(gradient)),
        ]
        return SignalReport.from_step(step, 0, rows)

    def found(overflows, by_hand):
        diagnosis, model = RunDiagnosis(), network()
        diagnosis.begin_by_hand(model, None) if by_hand else diagnosis.begin(model)
        for step, overflow in enumerate(overflows):
            diagnosis.add(report(step, overflow))
        return "nonfinite" in [finding.kind for finding in diagnosis.new_findings(model)]

    assert found([True], by_hand=False)
    assert not found([True], by_hand=True)
    assert not found([False, True, True], by_hand=True)
    assert found([False, True, True, True], by_hand=True)


def test_averages_are_judged_when_the_loop_ends():
    """After ten steps those of momentum 0.99 are what they began with; a loop may have thousands before it."""
    model = keras.Sequential([keras.Input((6,)), L.Dense(16), L.BatchNormalization(name="norm"), L.Dense(3)])
    model.layers[0].kernel.assign(0.1 * model.layers[0].kernel)
    loop = Loop("plain", model=model)
    step = watch(loop.step, model, None, "batch", optimizer=loop.optimizer)
    for _ in range(3):
        loop.train(7, step)
    assert "batch_norm_lag" not in [finding.kind for finding in step.findings]
    if BACKEND == "jax":  # the state is the loop's
        return
    step.close()
    assert "batch_norm_lag" in [finding.kind for finding in step.findings]
    (finding,) = [each for each in step.findings if each.kind == "batch_norm_lag"]
    assert "compile" not in finding.remedy


def test_gradients_that_come_later_are_not_missed(recwarn):
    """Accumulated over two calls: the first gives none."""
    loop, calls = Loop("plain"), []

    def step(*args):
        calls.append(1)
        return loop.step(*args) if len(calls) % 2 == 0 else (0.0, loop.state) if BACKEND == "jax" else 0.0

    watched = watch(step, loop.model, None, "batch", optimizer=loop.optimizer, on_finding="ignore")
    loop.train(4, watched)
    watched.close()
    assert "no gradient of a weight" not in str([w.message for w in recwarn])


@pytest.mark.skipif(BACKEND != "torch", reason="torch.amp")
def test_the_scale_of_pytorchs_own_scaler_is_divided_out():
    import torch

    def figures(scale):
        model = network()
        optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=scale)

        def step(x, y):
            optimizer.zero_grad()
            scaler.scale(loss_of(y, model(x, training=True))).backward()
            scaler.step(optimizer)
            scaler.update()

        watched = watch(step, model, None, "batch", sample_size=None, optimizer=optimizer, on_finding="ignore")
        watched(torch.tensor(X[:8]), torch.tensor(Y[:8]))
        return watched.reports[0].scalars()

    plain, scaled = figures(1.0), figures(1024.0)
    assert scaled.keys() == plain.keys()
    np.testing.assert_allclose(list(scaled.values()), list(plain.values()), rtol=1e-4, atol=1e-12)


@pytest.mark.skipif(BACKEND != "jax", reason="on the other backends there is one way")
def test_a_step_that_updates_variables_in_place():
    import jax

    def train(watched):
        model, optimizer = network(), keras.optimizers.Adam(1e-2)
        optimizer.build(model.trainable_variables)

        others = [v.value for v in model.non_trainable_variables]

        def step(x, y):
            def loss(weights):
                return loss_of(y, model.stateless_call(weights, others, x)[0])

            gradients = jax.grad(loss)([v.value for v in model.trainable_variables])
            optimizer.apply(gradients, model.trainable_variables)

        used = watch(step, model, None, "batch", optimizer=optimizer, on_finding="ignore") if watched else step
        for i in range(3):
            used(X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8])
        return used, [np.asarray(v.value) for v in model.trainable_variables]

    (step, weights), (_, expected) = train(True), train(False)
    np.testing.assert_equal(weights, expected)
    assert {"weight_gradient_variance/a", "update_ratio/b"} < set(step.reports[0].scalars())
    assert len(step.reports) == 3
