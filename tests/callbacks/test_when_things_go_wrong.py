"""Full disks, removed directories, killed processes, interrupts and odd data: done for real, in real fits."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import warnings

import keras
import numpy as np
import pytest
from helpers import default_tags, events, python_command, python_environment, run_python, state_of, together_tags
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

from keras_initkit.callbacks import LayerStatsCallback, _event_log
from keras_initkit.callbacks._event_log import EventLog
from keras_initkit.report._scalars import DEFAULT_STATISTICS

BACKEND = keras.backend.backend()
ON_TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="its model is written in TensorFlow")
DOTTED = pytest.mark.skipif(BACKEND == "torch", reason="a parameter of PyTorch has no dot in its name")

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((80, 4)).astype("float32"), RNG.standard_normal((80, 2)).astype("float32")
BATCHES = 10
UNWRITABLE = r"cannot write the log to .*expected a directory where files can be made.*Choose another `log_dir`"


def small_model(cls=keras.Model, name="out", **options):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(2, name=name)(keras.layers.Dense(3, "tanh", name="hidden")(inputs))
    model = cls(inputs, outputs)
    model.compile("adam", "mse", **options)
    return model


def fit(model, *callbacks, x=X, y=Y):
    return model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=list(callbacks)).history


def at(batch, action, hook="on_train_batch_begin"):
    """A callback that acts once, before or after a batch."""
    return keras.callbacks.LambdaCallback(**{hook: lambda b, logs: action() if b == batch else None})


def scalar_events(path):
    """The events that hold figures: neither the layout of the charts, nor texts or pictures."""
    plugins = [(e, {value.metadata.plugin_data.plugin_name for value in e.summary.value}) for e in events(path)]
    return [e for e, names in plugins if names == {"scalars"}]


def steps(path):
    """The steps of those events."""
    return [e.step for e in scalar_events(path)]


def written(directory):
    (path,) = (directory / "train").iterdir()
    return path


def fit_and_warnings(model, *callbacks):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(model, *callbacks)
    return history, [str(w.message) for w in caught if "LayerStatsCallback" in str(w.message)]


# log_dir not writable


def refuses_before_training(log_dir):
    model = small_model()
    before = model.get_weights()
    with pytest.raises(OSError, match=UNWRITABLE):
        fit(model, LayerStatsCallback(log_dir))
    np.testing.assert_equal(model.get_weights(), before)
    fit(model)


@pytest.mark.parametrize("place", ["logs", "logs/train"])
def test_a_file_in_the_directory_s_place(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file")
    refuses_before_training(tmp_path / "logs")
    assert (tmp_path / place).read_text() == "a file"


def test_a_read_only_directory(tmp_path):
    (tmp_path / "logs").mkdir(mode=0o555)
    if os.access(tmp_path / "logs", os.W_OK):
        pytest.skip("root may write anywhere")
    refuses_before_training(tmp_path / "logs")


# A disk that fills up, a directory that goes away

ON_A_SMALL_DISK = """
    import os, sys
    from test_when_things_go_wrong import *

    disk = pathlib.Path(sys.argv[1])

    def fill():
        with open(disk / "filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(512))
            except OSError:
                pass

    stats = LayerStatsCallback(disk / "logs", "batch")
    model = small_model()
    fit(model, stats)
    _, caught = fit_and_warnings(model, at(2, fill), stats)
    result = {"warnings": caught, "reports": [report.step for report in stats.reports]}
    result["steps"] = steps(written(disk / "logs"))
    try:
        fit(model, stats)
    except OSError as error:
        result["full at the start"] = str(error)
    result["files"] = len(list((disk / "logs" / "train").iterdir()))
    os.remove(disk / "filler")
    shutil.rmtree(disk / "logs")
    full_at_the_end = at(BATCHES - 1, fill, "on_train_batch_end")
    last = LayerStatsCallback(disk / "last", "batch", on_finding="ignore")
    _, result["warnings at the end"] = fit_and_warnings(small_model(), last, full_at_the_end)
    result["last steps"] = steps(written(disk / "last"))
    tags = [value.tag for event in events(written(disk / "last")) for value in event.summary.value]
    result["pictures"] = [tag for tag in tags if tag == "layers/variance"]
    os.remove(disk / "filler")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        fit(model, LayerStatsCallback(disk / "other"))
    except OSError as error:
        result["read-only"] = str(error)
    print(json.dumps(result))
"""


@pytest.mark.one_backend
def test_a_file_system_that_is_full(tmp_path):
    """A tmpfs of 64 KiB, in a mount namespace of the child's own: needs no privileges where the kernel allows it."""
    mount = 'mount -t tmpfs -o size=64k none "$0" && exec "$@"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the system lets this user mount nothing")
    child = run_python("-c", ON_A_SMALL_DISK, tmp_path, prefix=namespace)
    result = json.loads(child.stdout.splitlines()[-1])
    (message,) = result["warnings"]
    assert "No space left on device" in message
    assert "training goes on" in message
    assert result["reports"] == list(range(2 * BATCHES))
    assert result["steps"] == list(range(len(result["steps"])))
    assert BATCHES + 2 <= len(result["steps"]) < 2 * BATCHES
    assert "No space left on device" in result["full at the start"]
    assert result["files"] == 1  # no empty one of the fit that did not begin
    (message,) = result["warnings at the end"]  # where the picture found no place
    assert "No space left on device" in message
    assert result["last steps"] == list(range(BATCHES))
    assert result["pictures"] == []
    assert "Read-only file system" in result["read-only"]
    assert "Choose another `log_dir`" in result["read-only"]


def test_a_write_that_is_cut_short(tmp_path):
    """The system takes the beginning of an event and refuses the rest: as a full disk does, or a quota."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    stats = LayerStatsCallback(tmp_path, "batch")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (written(tmp_path).stat().st_size + 100, before[1]))

    try:
        history, caught = fit_and_warnings(small_model(), at(5, limit), stats)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [m for m in caught if "File too large" in m and "training goes on" in m] == caught
    assert len(caught) == 1
    assert [report.step for report in stats.reports] == list(range(BATCHES))
    assert steps(written(tmp_path)) == [0, 1, 2, 3, 4]
    assert history == fit(small_model())
    # Nothing of the event that did not fit is left: 16 bytes frame each one.
    whole = sum(16 + len(record) for record in RawEventFileLoader(str(written(tmp_path))).Load())
    assert written(tmp_path).stat().st_size == whole


def test_a_directory_removed_in_the_middle(tmp_path):
    stats, logs = LayerStatsCallback(tmp_path / "logs", "batch"), tmp_path / "logs"
    model = small_model()
    history, caught = fit_and_warnings(model, at(5, lambda: shutil.rmtree(logs)), stats)
    (message,) = caught
    assert "No such file or directory" in message
    assert [report.step for report in stats.reports] == list(range(BATCHES))
    assert history == fit(small_model())
    assert not logs.exists()
    fit(model, stats)
    assert steps(written(logs)) == list(range(BATCHES, 2 * BATCHES))


def test_a_directory_removed_at_the_end(tmp_path):
    """The picture and the summary find no place; all figures are there."""
    stats, logs = LayerStatsCallback(tmp_path / "logs", "batch", on_finding="ignore"), tmp_path / "logs"
    history, caught = fit_and_warnings(
        small_model(), stats, at(BATCHES - 1, lambda: shutil.rmtree(logs), "on_train_batch_end")
    )
    (message,) = caught
    assert "No such file or directory" in message
    assert "training goes on" in message
    assert [report.step for report in stats.reports] == list(range(BATCHES))
    assert history == fit(small_model())


def test_another_working_directory_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(small_model(), LayerStatsCallback("logs", "batch"), at(5, lambda: os.chdir("/")))
    assert steps(written(tmp_path / "logs")) == list(range(BATCHES))


# Killed processes, and two of them in one directory

TRAINS_UNTIL_KILLED = """
    import sys, os
    from test_when_things_go_wrong import *

    def tell(batch, logs):
        print(stats.reports[-1].step, flush=True)

    stats, after = LayerStatsCallback(sys.argv[1], "batch"), keras.callbacks.LambdaCallback(on_train_batch_end=tell)
    small_model().fit(X, Y, batch_size=8, epochs=10**6, verbose=0, callbacks=[stats, after])
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two processes that log into one directory, killed while they train: (directory, process number -> last step)."""
    directory = tmp_path_factory.mktemp("killed")
    command, environment = python_command("-c", TRAINS_UNTIL_KILLED, directory), python_environment()
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    try:
        told = {child.pid: list(itertools.islice(child.stdout, 20)) for child in children}
    finally:
        for child in children:
            child.kill()
    for child in children:  # a last line that was cut is no step
        told[child.pid] += [line for line in child.stdout if line.endswith("\n")]
    last = {pid: int(lines[-1]) for pid, lines in told.items()}
    assert [child.wait() for child in children] == [-signal.SIGKILL] * 2
    return directory, last


@pytest.mark.one_backend
def test_a_killed_process_leaves_every_step(killed):
    directory, last = killed
    for pid, step in last.items():
        (path,) = (directory / "train").glob(f"*.{pid}.*")
        read = steps(path)
        assert read == list(range(len(read)))
        assert read[-1] >= step


@pytest.mark.one_backend
def test_two_processes_in_one_directory(killed):
    directory, last = killed
    files = list((directory / "train").iterdir())
    assert len(files) == len(last) == 2
    for path in files:
        versions = [e.file_version for e in events(path) if e.file_version]
        assert versions == ["brain.Event:2"]
        tags = [{value.tag for value in e.summary.value} for e in scalar_events(path)]
        expected = default_tags("hidden", "out", bounded=["hidden"]) | together_tags(bounded=True)
        assert all(each == expected for each in tags)


def test_an_event_torn_anywhere_costs_that_event_alone(tmp_path):
    """What a machine that stops may leave: the last event cut at every byte."""
    log = EventLog(tmp_path)
    for step in range(3):
        whole = os.path.getsize(log.path)
        log.scalars(step, {"mean/layer": 0.5})
    data = pathlib.Path(log.path).read_bytes()
    for size in range(whole, len(data)):
        pathlib.Path(log.path).write_bytes(data[:size])
        assert steps(log.path) == [0, 1]


def test_processes_of_one_name_and_number(tmp_path, monkeypatch):
    """Containers that share a directory may share all that a file's name is made of."""
    monkeypatch.setattr(_event_log.time, "time", lambda: 1.0)
    paths = set()
    for _ in range(2):
        log = EventLog(tmp_path)
        log.scalars(0, {"mean/layer": 0.5})
        paths.add(log.path)
    assert [steps(path) for path in paths] == [[0], [0]]


def test_a_file_that_another_process_makes_first(tmp_path, monkeypatch):
    """Both have looked at the directory, and then make a file of the same name."""
    first = EventLog(tmp_path)
    monkeypatch.setattr(_event_log.time, "time", lambda: float(os.path.basename(first.path).split(".")[3]))
    looks = iter([[], os.listdir(tmp_path), os.listdir(tmp_path)])
    monkeypatch.setattr(_event_log.os, "listdir", lambda directory: next(looks))
    second = EventLog(tmp_path)
    assert second.path != first.path


# Interrupts and exceptions


def interrupt():
    signal.raise_signal(signal.SIGINT)


def fail():
    raise RuntimeError("another callback failed")


class ChecksItsData(keras.Model):
    """Fails in the compiled step, where a batch is not finite."""

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        return super().train_step((tf.debugging.check_numerics(x, "the batch is not finite"), y))


class InterruptsItself(keras.Model):
    """Is interrupted in a `train_step` that runs eagerly."""

    def train_step(self, *arguments):  # on JAX of the state and the data
        if not np.isfinite(keras.ops.convert_to_numpy(arguments[-1][0])).all():
            interrupt()
        return super().train_step(*arguments)


NAN_AT_5 = X.copy()
NAN_AT_5[5 * 8] = np.nan


@pytest.fixture
def sigint():
    """Ctrl-C is a KeyboardInterrupt, whatever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def open_files(directory):
    found = []
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # that of the listing itself
            continue
    return [path for path in found if path.startswith(str(directory))]


@pytest.mark.parametrize(
    ("cls", "breaks", "error", "measured"),
    [
        pytest.param(keras.Model, at(5, interrupt), KeyboardInterrupt, 5, id="ctrl-c-before-a-step"),
        pytest.param(keras.Model, at(5, interrupt, "on_train_batch_end"), KeyboardInterrupt, 6, id="ctrl-c-after"),
        pytest.param(keras.Model, at(5, fail), RuntimeError, 5, id="callback-before-a-step"),
        pytest.param(keras.Model, at(0, fail, "on_epoch_end"), RuntimeError, BATCHES, id="callback-after-an-epoch"),
        pytest.param(ChecksItsData, None, Exception, 5, id="compiled-train-step", marks=ON_TENSORFLOW),
        pytest.param(InterruptsItself, None, KeyboardInterrupt, 5, id="ctrl-c-in-an-eager-train-step"),
    ],
)
def test_a_fit_that_breaks_leaves_the_model_as_it_was(tmp_path, sigint, cls, breaks, error, measured):
    outcomes = []
    for stats in ([], [LayerStatsCallback(tmp_path, "batch")]):
        model = small_model(cls, run_eagerly=cls is InterruptsItself)
        fit(model)
        function = model.train_function
        with pytest.raises(error) as raised:
            fit(model, *stats, *([breaks] if breaks else []), x=X if breaks else NAN_AT_5)
        if cls is ChecksItsData:
            assert "the batch is not finite" in str(raised.value)
        assert open_files(tmp_path) == []  # while the traceback still holds the frames of `fit`
        assert "train_step" not in vars(model)
        assert "apply" not in vars(model.optimizer)
        assert not any("call" in vars(layer) for layer in model._flatten_layers())
        # Where another callback stops a due step from beginning, nobody can tell this one, and the next step to
        # run is measured: it puts the function back.
        if breaks is None or measured > 5:
            assert model.train_function is function
        after = fit(model)
        assert model.train_function is function
        outcomes.append((after, [array for _, array in state_of(model)]))
    np.testing.assert_equal(outcomes[1], outcomes[0])
    expected = list(range(BATCHES, BATCHES + measured))  # the fit before had ten steps
    assert steps(written(tmp_path)) == [report.step for report in stats[0].reports] == expected
    fit(model, *stats)
    assert len(stats[0].reports) == measured + BATCHES


# Odd data, layers and names


def first_report(model, log_dir, x=X, y=Y):
    """What the first step showed, once it has been compared with what the log holds."""
    stats = LayerStatsCallback(log_dir, "batch")
    fit(model, stats, x=x, y=y)
    assert len(stats.reports) == BATCHES
    for event, report in zip(scalar_events(written(log_dir)), stats.reports, strict=True):
        values = {value.tag: value.tensor.float_val[0] for value in event.summary.value}
        logged = {tag: value for tag, value in values.items() if tag not in together_tags(bounded=True)}
        assert "Values/NaN or infinite" in values
        with np.errstate(over="ignore"):
            expected = {tag: float(np.float32(value)) for tag, value in report.scalars(DEFAULT_STATISTICS).items()}
        np.testing.assert_equal(logged, expected)
    return stats.reports[0].scalars(DEFAULT_STATISTICS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_data_that_is_not_finite(tmp_path, value):
    scalars = first_report(small_model(), tmp_path, np.full_like(X, value))
    assert np.isnan(scalars["activation_variance/hidden"])
    assert np.isfinite(scalars["dead_units/hidden"])
    assert set(scalars) == default_tags("hidden", "out", bounded=["hidden"])
    assert scalars["nonfinite/hidden"] > 0


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras multiplies float64 as float32 on the other backends")
def test_figures_beyond_what_an_event_holds(tmp_path):
    """Squares of float64 overflow in Python, which raises; TensorBoard's scalars are of 32 bits."""
    layer = keras.layers.Dense(2, name="out", dtype="float64")
    model = keras.Sequential([keras.Input((4,), dtype="float64"), layer])
    layer.kernel.assign(np.full((4, 2), 1e160))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    scalars = first_report(model, tmp_path)
    assert scalars["activation_variance/out"] == np.inf


def test_constant_tensors(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="zeros", name="out")(inputs))
    model.compile("sgd", "mse")
    scalars = first_report(model, tmp_path, np.ones_like(X), np.zeros_like(Y))
    assert scalars.pop("dead_units/out") == 1.0
    assert set(scalars.values()) == {0.0}
    assert "update_ratio/out" not in scalars  # 0 / 0


class NoUnits(keras.layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 0), name="kernel")

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)


def test_empty_tensors(tmp_path):
    """They have no moments: what there is of their layer is logged, and of the others all."""
    inputs, none = keras.Input((4,)), keras.Input((0,), dtype="int32")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 3, name="embedding")(none))
    joined = keras.layers.Concatenate()([inputs, NoUnits(name="no_units")(inputs), embedded])
    model = keras.Model([inputs, none], keras.layers.Dense(2, name="out")(joined))
    model.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "LayerStatsCallback: the diagnosis failed")
        tags = set(first_report(model, tmp_path, [X, np.zeros((len(X), 0), "int32")]))
    assert {tag for tag in tags if tag.endswith("/out")} == default_tags("out")
    assert {tag for tag in tags if tag.endswith("/embedding")} >= {"nonfinite/embedding"}
    assert not any(tag.endswith("/no_units") for tag in tags)


@pytest.mark.parametrize("built", [True, False])
def test_a_layer_that_is_never_called(tmp_path, built):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.never = keras.layers.Dense(2, name="used"), keras.layers.Dense(3, name="never")
            if built:
                self.never.build((None, 4))

        def call(self, inputs):
            return self.used(inputs)

    model = Model()
    model.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras: no gradient reaches it, or it has not been built
        tags = set(first_report(model, tmp_path))
    never = {"update_ratio/never", "nonfinite/never"}
    if BACKEND == "jax":  # which has a gradient for every weight
        never.add("weight_gradient_variance/never")
    assert tags == default_tags("used") | (never if built else set())


@pytest.mark.parametrize(
    "name", ["two words", "größe 層 🙂", "<b onclick=x>&amp;", "a\\b:c%s{}", "a\nb", pytest.param("..", marks=DOTTED)]
)
def test_layer_names(tmp_path, name):
    # TensorFlow's graphs take none of these but the last; Keras trains such a model eagerly.
    tags = set(first_report(small_model(name=name, run_eagerly=True), tmp_path))
    assert tags == default_tags("hidden", name, bounded=["hidden"])


@pytest.mark.parametrize("name", ["a>b", pytest.param(".hidden.", marks=DOTTED), "0-1"])
def test_layer_names_in_a_graph_and_slashes_of_paths(tmp_path, name):
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name=name)], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner], name="outer")
    model.compile("sgd", "mse")
    assert set(first_report(model, tmp_path)) == default_tags(f"inner/{name}")
