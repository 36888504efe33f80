"""Rows of a report about attention: one for each attention, for each residual sum, and for order as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

Row = TypeVar("Row", bound="_Plain")


class _Plain:
    """A row that is written as a dictionary, without what was not measured."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()  # type: ignore[call-overload]
            if value is not None
        }

    @classmethod
    def from_dict(cls: type[Row], data: Mapping[str, Any]) -> Row:
        """Returns the row that `to_dict` wrote; what a later version has added is left out."""
        types = {each.name: each.type for each in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: _decoded(value, str(types[name])) for name, value in data.items() if name in types})


def _decoded(value: Any, kind: str) -> Any:
    """Returns a value as it was before JSON, which has lists alone, and no NaN or infinity."""
    if isinstance(value, list | tuple):
        return tuple(_decoded(each, kind) for each in value)
    if "float" in kind:
        return float("nan") if value is None else float(value)
    return value


@dataclass(frozen=True)
class AttentionStats(_Plain):
    """Statistics of one attention. `None` means not measured or not applicable.

    Args:
        layer: String. Path of the layer that holds the attention, or of the operation that averages its values.
        call: Integer. Number among the attentions of this path, from 0.
        queries: Integer. Number of positions that ask.
        keys: Integer. Number of positions that are looked at.
        entropy: Tuple of floats. Entropy of each head's weights in nats, averaged over queries.
        uniform_entropy: Float. What it is if all keys that the mask allows get the same weight: $\\ln n$ of n keys.
        largest_logit: Tuple of floats. Largest argument of each head's softmax, masked keys apart.
        future: Float. Fraction of weight on keys behind the query's position; `None` where queries and keys are
            positions of different inputs.
        future_allowed: Float. Fraction of the pairs of a query and a key behind it that the mask allows.
        past_allowed: Float. Likewise of keys before the query.
        padding: Float. Fraction of weight that queries which are no padding give to keys which are.
        padded_keys: Float. Fraction of keys that are padding, of the examples that have some.
        sum_error: Float. How far the sum of a query's weights is from 1, in the median over queries: 0 where the
            softmax is taken over the keys.
        queries_from: Tuple of strings. Inputs of the model whose positions the queries have.
        keys_from: Tuple of strings. Likewise of the keys.
    """

    layer: str
    call: int
    queries: int
    keys: int
    entropy: tuple[float, ...]
    uniform_entropy: float
    largest_logit: tuple[float, ...]
    future: float | None = None
    future_allowed: float | None = None
    past_allowed: float | None = None
    padding: float | None = None
    padded_keys: float | None = None
    sum_error: float = 0.0
    queries_from: tuple[str, ...] = ()
    keys_from: tuple[str, ...] = ()

    @property
    def heads(self) -> int:
        """Number of heads."""
        return len(self.entropy)

    @property
    def is_self(self) -> bool:
        """Whether queries and keys are positions of the same inputs."""
        return bool(self.queries_from) and self.queries_from == self.keys_from and self.queries == self.keys

    @property
    def is_causal(self) -> bool:
        """Whether no query may look at a key behind it."""
        return self.is_self and self.future_allowed == 0

    @property
    def relative_entropy(self) -> float:
        """Largest entropy of a head, relative to uniform weights."""
        return max(self.entropy) / self.uniform_entropy if self.uniform_entropy > 0 else float("nan")


@dataclass(frozen=True)
class ResidualStats(_Plain):
    """A sum in which a residual branch ends.

    Args:
        layer: String. Path of the sum.
        call: Integer. Number of the call of this path, from 0.
        branch: String. Path of the last layer of the branch.
        cosine: Float. Cosine between what the branch adds and the stream that it is added to, averaged over positions.
        ratio: Float. Root mean square of the branch over that of the stream.
    """

    layer: str
    call: int
    branch: str
    cosine: float
    ratio: float


@dataclass(frozen=True)
class OrderStats(_Plain):
    """What a model makes of the order of its tokens, measured with weights drawn around its own.

    Weights that happen to be 0 then hide nothing: the figures are about the structure.

    Args:
        input: String. The input that holds the tokens.
        permuted: Float. How much the output changes if the tokens change places (and its own positions, where it has
            any, are put back), relative to how much it changes with other tokens. 0 where positions are lost.
        future: Float. Largest change of an output before a token that is changed, relative to the largest of all;
            0 in a causal model. `None` of outputs without positions.
        past: Float. Likewise of outputs behind it; 0 in a model that reads backward.
        next_tokens: Boolean. Whether the labels are the tokens that come next; `None` without labels.
    """

    input: str
    permuted: float | None = None
    future: float | None = None
    past: float | None = None
    next_tokens: bool | None = None
