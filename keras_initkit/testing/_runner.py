"""Runs the checks: all on one initializer, or each as a pytest case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keras_initkit.testing import _state_checks, _value_checks
from keras_initkit.testing._subject import ConformanceError, NotApplicable, Subject
from keras_initkit.testing.declarations._declare import Declared, Shape

# In the order in which they run: what the later ones rest on (copies made from the configuration) comes first.
CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check
    for check in (
        _state_checks.configuration,
        _value_checks.shapes,
        _value_checks.zero_sized,
        _value_checks.dtypes,
        _value_checks.finite,
        _value_checks.precision,
        _value_checks.mean,
        _value_checks.stddev,
        _value_checks.fan_mode,
        _value_checks.truncation,
        _value_checks.distribution,
        _value_checks.structure,
        _value_checks.sign_symmetry,
        _state_checks.reproducibility,
        _state_checks.distinct_draws,
        _state_checks.clone_safety,
        _state_checks.json_round_trip,
        _state_checks.keras_round_trip,
        _state_checks.global_random_state,
        _state_checks.attributes,
        _state_checks.retracing,
    )
}

Expected = Callable[[Shape], Declared] | None


def run_check(name: str, subject: Subject) -> None:
    """One check, with its name and the initializer's in the error, whatever was raised."""
    try:
        CHECKS[name](subject)
    except NotApplicable:
        raise
    except ConformanceError as error:
        raise ConformanceError(f"{subject.name}, {name}: {error}") from error.__cause__
    except Exception as error:
        raise ConformanceError(f"{subject.name}, {name}: got {error!r}, expected no error here.") from error


def checked_deviations(subject: Subject, deviations: Mapping[str, str] | None) -> Mapping[str, str]:
    """The known deviations: those given, or those of the table."""
    known = subject.known.deviations if deviations is None else deviations
    unknown = set(known) - set(CHECKS)
    if unknown:
        raise ValueError(f"deviations: got {', '.join(sorted(unknown))}, expected names among {', '.join(CHECKS)}.")
    return known


def check_initializer(
    initializer: Any, expected: Expected = None, *, deviations: Mapping[str, str] | None = None
) -> None:
    """Runs every check of `CHECKS` on an initializer and raises a readable error at the first that fails.

    Args:
        initializer: Initializer instance. It is not called itself if it takes a seed; copies with known seeds are, so
            the verdict does not depend on chance (docs/conformance.md).
        expected: Callable. A function from a shape to a frozen `scipy.stats` distribution, of which each element is an
            independent draw, or to a predicate on the values (such as `Orthogonal(gain)`). Known already for
            Keras' own initializers and for ours.
        deviations: Mapping from names of checks to strings. Checks that it fails by design, each with the reason;
            they are left out. By default those known of the class.

    Raises:
        ConformanceError: At the first check that fails: what was received, what was expected, what to do.
        ValueError: If nothing is known about the class and `expected` is None, or a check's name is unknown.

    Example:

    >>> import keras, scipy.stats
    >>> check_initializer(keras.initializers.HeNormal())
    >>> check_initializer(keras.initializers.RandomNormal(stddev=0.5), lambda shape: scipy.stats.norm(0, 0.49))
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    keras_initkit.testing._subject.ConformanceError: RandomNormal(stddev=0.5), stddev: got a standard deviation of ...
    """
    subject = Subject(initializer, expected)
    known = checked_deviations(subject, deviations)
    for name in CHECKS:
        if name not in known:
            try:
                run_check(name, subject)
            except NotApplicable:
                continue


def failed_checks(initializer: Any, expected: Expected = None) -> dict[str, ConformanceError]:
    """Returns every check that an initializer fails, known deviations included, with its error.

    Args:
        initializer, expected: As in `check_initializer`.

    Returns:
        A dict from the check's name to its `ConformanceError`.

    Example:

    >>> import keras
    >>> sorted(failed_checks(keras.initializers.Zeros()))
    []
    """
    subject, failed = Subject(initializer, expected), {}
    for name in CHECKS:
        try:
            run_check(name, subject)
        except NotApplicable:
            continue
        except ConformanceError as error:
            failed[name] = error
    return failed


def parametrize_with_checks(
    initializers: Iterable[Any], expected: Expected = None, *, deviations: Mapping[str, str] | None = None
) -> Any:
    """Returns a pytest decorator that makes one case of each initializer and check, as `HeNormal-distribution`.

        @parametrize_with_checks([keras.initializers.HeNormal(), MyInitializer(gain=2.0)])
        def test_conformance(initializer, check):
            check(initializer)

    A check that does not apply is skipped, a known deviation is expected to fail (xfail), each with its reason.

    Args:
        initializers: Initializer instances.
        expected, deviations: As in `check_initializer`, for all of them.
    """
    import pytest  # only tests have it

    def case(subject: Subject, name: str, known: Mapping[str, str]) -> Any:
        def check(initializer: Any) -> None:
            try:
                run_check(name, Subject(initializer, expected))
            except NotApplicable as reason:
                pytest.skip(str(reason))

        # Not strict: some deviations are seen on some backends only.
        marks = [pytest.mark.xfail(reason=known[name], strict=False)] if name in known else []
        return pytest.param(subject.initializer, check, id=f"{subject.name}-{name}", marks=marks)

    cases = []
    for initializer in initializers:
        subject = Subject(initializer, expected)
        known = checked_deviations(subject, deviations)
        cases += [case(subject, name, known) for name in CHECKS]
    return pytest.mark.parametrize(("initializer", "check"), cases)
