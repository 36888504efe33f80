import keras
import numpy as np
import pytest

from keras_initkit.comparison._datasets import Dataset, load, split


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_digits_repeat_every_pixel():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    data, images = load("digits"), digits.images
    assert data.x_train.shape[1:] == (64, 32)
    assert len(data.y_train) + len(data.y_test) == len(images) == 1797
    assert data.classes == 10
    # Undo the standardization by two known pixels (0 is the least, 16 the largest), then compare every pixel.
    x = np.concatenate([data.x_train, data.x_test]).astype("float64")
    x = (x - x.min()) / (x.max() - x.min()) * 16
    assert np.abs(x - np.round(x)).max() < 1e-4
    x = np.round(x)
    small = x[:, ::8, ::4]
    for row in range(8):
        for column in range(4):
            np.testing.assert_array_equal(x[:, row::8, column::4], small)
    # The same images, each as often, under the same labels.
    y = np.concatenate([data.y_train, data.y_test])
    found = sorted((*image.ravel(), label) for image, label in zip(small, y, strict=True))
    expected = sorted((*image.ravel(), label) for image, label in zip(images, digits.target, strict=True))
    assert found == expected


@pytest.mark.parametrize("name", ["digits", "gaussian"])
def test_training_set_is_standardized(name):
    data = load(name)
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    assert data.x_train.astype("float64").mean() == pytest.approx(0, abs=1e-6)
    assert data.x_train.astype("float64").std() == pytest.approx(1, abs=1e-6)
    # A quarter of the training examples, drawn from the same: their mean is near, but not 0 by construction.
    assert data.x_test.mean() != pytest.approx(0, abs=1e-7)


def test_split_is_decided_by_the_seed_and_disjoint(tmp_path):
    x = np.arange(100.0)[:, None]  # every example can be told from the others
    path = saved(tmp_path / "x.npz", x=x, y=np.tile([0, 1, 2, 3], 25))
    a, b, other = load(path, 3), load(path, 3), load(path, 4)
    np.testing.assert_array_equal(a.x_train, b.x_train)
    np.testing.assert_array_equal(a.y_test, b.y_test)
    assert len(a.y_test) == 20
    assert set(a.x_test.ravel()).isdisjoint(a.x_train.ravel())
    assert set(a.x_test.ravel()) != set(other.x_test.ravel())
    np.testing.assert_array_equal(np.bincount(a.y_test), [5, 5, 5, 5])  # stratified


@pytest.mark.parametrize("seed", range(30))
def test_the_split_is_that_of_scikit_learn(seed):
    train_test_split = pytest.importorskip("sklearn.model_selection").train_test_split
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(rng.integers(2, 12)))
    # Rare classes, classes of equal size, whose remainders tie, and sizes that 5 does not divide.
    drawn = np.unique(rng.choice(len(shares), rng.integers(30, 400), p=shares), return_inverse=True)[1]
    for y in (
        drawn,
        np.arange(11 + seed) % 2,
        np.arange(101 + seed) % 7,
        np.arange(18) % 4,
        np.array([0] * (20 + seed) + [1]),
    ):
        stratify = y if np.bincount(y).min() > 1 and len(y) >= 5 * len(np.unique(y)) else None
        expected = train_test_split(np.arange(len(y)), test_size=0.2, random_state=seed, stratify=stratify)
        for indices, same in zip(split(y, seed), expected, strict=True):
            np.testing.assert_array_equal(indices, same)


def test_gaussian_is_drawn_from_the_seed():
    a, b, other = load("gaussian", 1), load("gaussian", 1), load("gaussian", 2)
    np.testing.assert_array_equal(a.x_train, b.x_train)
    assert not np.array_equal(a.x_train, other.x_train)
    assert a.x_train.shape == (1200, 64, 32)
    assert a.classes == 10
    # Fourth moment of 2.5 million normal numbers: 3, with a standard error of sqrt(96 / n).
    x = a.x_train.astype("float64")
    assert (x**4).mean() == pytest.approx(3, abs=5 * (96 / x.size) ** 0.5)


def test_labels_with_gaps_are_as_many_classes_as_there_are(tmp_path):
    y = np.tile([0, 5, 9], 20)
    data = load(saved(tmp_path / "x.npz", x=np.arange(60.0)[:, None], y=y))
    assert data.classes == 3
    assert data.chance == pytest.approx(1 / 3)
    x = np.concatenate([data.x_train, data.x_test]).ravel()
    labels = np.concatenate([data.y_train, data.y_test])
    np.testing.assert_array_equal(labels[np.argsort(x)], np.tile([0, 1, 2], 20))


def test_huge_labels_need_no_memory(tmp_path):
    data = load(saved(tmp_path / "x.npz", x=np.arange(40.0)[:, None], y=np.tile([7, 2**40], 20)))
    assert data.classes == 2


def test_a_class_of_one_example_is_split_all_the_same(tmp_path):
    y = np.array([0] * 19 + [1])
    data = load(saved(tmp_path / "x.npz", x=np.arange(20.0)[:, None], y=y))
    assert len(data.y_train) == 16
    assert data.classes == 2


def test_constant_images_are_centred():
    # The deviation is 0: dividing by it would make every pixel NaN.
    from keras_initkit.comparison._datasets import _standardized

    data = _standardized("x", np.full((8, 3), 7.0), np.zeros(8), np.full((2, 3), 7.0), np.zeros(2))
    assert (data.x_train == 0).all()
    assert (data.x_test == 0).all()


def test_chance_is_of_the_most_frequent_training_class():
    x = np.zeros((4, 1))
    data = Dataset("x", x, np.array([1, 1, 1, 0]), x, np.array([1, 0, 0, 0]))
    assert data.chance == 0.25


def test_mnist_without_a_network_is_one_line_with_a_remedy(monkeypatch):
    def offline():
        raise OSError("URL fetch failure:\n  no route to host")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", offline)
    with pytest.raises(ValueError, match=r"'mnist' could not be loaded .*no route.*--data FILE\.npz with") as error:
        load("mnist")
    assert "\n" not in str(error.value)


def test_mnist_comes_with_its_own_split(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 28, 28)).astype("uint8"), np.tile(np.arange(10), 3).astype("uint8")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: ((x[:20], y[:20]), (x[20:], y[20:])))
    data = load("mnist")
    np.testing.assert_array_equal(data.y_test, y[20:])
    expected = (x[20:] - x[:20].astype("float64").mean()) / x[:20].astype("float64").std()
    np.testing.assert_allclose(data.x_test, expected, rtol=1e-5, atol=1e-6)


GOOD_X, GOOD_Y = np.arange(40.0).reshape(20, 2), np.tile([0, 1], 10)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": GOOD_X}, r"cannot read .*y.*; expected an \.npz file with arrays x"),
        ({"x": GOOD_X, "y": GOOD_Y[:-1]}, r"x of shape \(20, 2\) and y of shape \(19,\); expected"),
        ({"x": GOOD_X, "y": GOOD_Y[:, None]}, r"y of shape \(20, 1\); expected"),
        ({"x": GOOD_X[:, 0], "y": GOOD_Y}, r"x of shape \(20,\) .* expected"),
        ({"x": GOOD_X[:, :0], "y": GOOD_Y}, r"x of shape \(20, 0\) .* expected"),
        ({"x": GOOD_X.astype(object), "y": GOOD_Y}, r"cannot read .*[Oo]bject arrays.*expected"),
        ({"x": GOOD_X.astype(str), "y": GOOD_Y}, r"x of dtype <U\d+; expected real numbers"),
        ({"x": GOOD_X * 1j, "y": GOOD_Y}, r"x of dtype complex128; expected real numbers"),
        ({"x": np.where(GOOD_X < 2, np.nan, GOOD_X), "y": GOOD_Y}, r"has 2 NaN or infinite values; expected none"),
        ({"x": GOOD_X, "y": GOOD_Y + 0.5}, r"not class numbers 0, 1, 2, \.\.\. \(dtype float64\); expected"),
        ({"x": GOOD_X, "y": np.where(GOOD_Y, np.inf, 0)}, r"not class numbers .* expected"),
        ({"x": GOOD_X, "y": np.where(GOOD_Y, np.nan, 0)}, r"not class numbers .* expected"),
        ({"x": GOOD_X, "y": GOOD_Y - 1}, r"not class numbers .* expected"),
        ({"x": GOOD_X, "y": GOOD_Y * 1j}, r"not class numbers .* expected"),
        ({"x": GOOD_X, "y": GOOD_Y.astype(str)}, r"not class numbers .* expected"),
        ({"x": GOOD_X[:9], "y": GOOD_Y[:9]}, r"9 examples of 2 classes; expected at least 10 examples"),
        ({"x": GOOD_X[:0], "y": GOOD_Y[:0]}, r"0 examples of 0 classes; expected"),
        ({"x": GOOD_X, "y": GOOD_Y * 0}, r"20 examples of 1 classes; expected .* 2 classes"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message) as error:
        load(saved(tmp_path / "x.npz", **arrays))
    assert "x.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    rng = np.random.default_rng(0)
    np.savez_compressed(path, x=rng.standard_normal((40, 30)), y=np.tile([0, 1], 20))
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2], whole[:200] + bytes(100) + whole[300:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"data: cannot read .*x\.npz.*; expected an \.npz file"):
            load(str(path))
    np.save(tmp_path / "x.npy", GOOD_X)
    with pytest.raises(ValueError, match=r"cannot read .*x\.npy.*; expected an \.npz file"):
        load(str(tmp_path / "x.npy"))
    with pytest.raises(ValueError, match=r"cannot read .*; expected an \.npz file"):
        load(str(tmp_path))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"got 'digit', .* 'digits', 'gaussian', 'mnist' nor a file that exists; exp"):
        load("digit")
