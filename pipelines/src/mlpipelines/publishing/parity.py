"""Does the exported model answer as the trained one did? The comparison that stands between a model and its users.

`train` keeps up to a thousand raw rows with what the model in memory answered for them as Beam had transformed them;
`publish` asks the exported model the same rows. A difference means that serving would compute features in another way than
training did, which no metric shows. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlpipelines.artifacts import KEY

EXPECTED = "expected/"
TOLERANCE = 1e-5

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far one output agrees."""

    output: str
    rows: int
    differing: int
    worst: float
    """Largest difference, as a share of the expected value where that is above 1; 0 or 1 for text."""
    example: str = ""
    """The row that differs most: its key, what was expected and what came."""

    def as_row(self) -> dict[str, object]:
        """For the table of a rejection."""
        return {
            "output": self.output,
            "rows": self.rows,
            "differing": self.differing,
            "worst": f"{self.worst:.1e}",
            "example": self.example,
        }


def compare_answers(reference: pa.Table, answers: Mapping[str, Array]) -> list[Agreement]:
    """Hold `answers` against the `expected/` columns of `reference`, row by row.

    Numbers agree within 1e-5, relative to the expected value where that is above 1. Text agrees when it is equal, or when the
    two highest expected scores of the row lie closer than twice that, so that either name is right.
    """
    expected = {name.removeprefix(EXPECTED): _array(reference[name]) for name in reference.column_names if name.startswith(EXPECTED)}
    keys = reference[KEY].to_pylist() if KEY in reference.column_names else [str(row) for row in range(len(reference))]
    tied = _tied(expected.get("scores"), len(reference))
    return [_agreement(name, value, answers.get(name), tied, keys) for name, value in expected.items()]


def _agreement(name: str, expected: Array, answer: Array | None, tied: Array, keys: list[str]) -> Agreement:
    rows = len(expected)
    if answer is None or len(answer) != rows:
        return Agreement(output=name, rows=rows, differing=rows, worst=float("inf"), example="the exported model has no such output")
    if expected.dtype == object:
        found = np.array(
            [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in answer.reshape(-1)], dtype=object
        )
        apart = ((found.reshape(expected.shape) != expected).reshape(rows, -1).any(axis=1) & ~tied).astype(np.float64)
    else:
        found = answer.reshape(expected.shape).astype(np.float64)
        distance = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
        apart = np.where(np.isnan(distance), np.inf, distance).reshape(rows, -1).max(axis=1, initial=0.0)
    worst = int(apart.argmax()) if rows else 0
    differs = apart > TOLERANCE
    return Agreement(
        output=name,
        rows=rows,
        differing=int(differs.sum()),
        worst=float(apart[worst]) if rows else 0.0,
        example=f"row {keys[worst]}: expected {_short(expected[worst])}, got {_short(found[worst])}" if differs.any() else "",
    )


def _array(column: pa.ChunkedArray) -> Array:
    """A column as an array: text as objects, lists of one length as [rows, n], numbers as float64."""
    flat = column.combine_chunks()
    if pa.types.is_list(flat.type) or pa.types.is_large_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        return _array(pa.chunked_array([flat.flatten()])).reshape(len(flat), -1)
    if pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type) or pa.types.is_binary(flat.type):
        return np.array([value.decode() if isinstance(value, bytes) else value for value in flat.to_pylist()], dtype=object)
    return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float64)


def _tied(scores: Array | None, rows: int) -> Array:
    if scores is None or scores.ndim < 2 or scores.shape[1] < 2:  # noqa: PLR2004  # two places can tie
        return np.zeros(rows, dtype=np.bool_)
    highest = np.sort(scores, axis=1)
    return np.asarray(highest[:, -1] - highest[:, -2] <= 2 * TOLERANCE)


def _short(value: Any) -> str:
    text = np.array2string(np.asarray(value), precision=6, threshold=6, edgeitems=3) if isinstance(value, np.ndarray) else str(value)
    return " ".join(text.split())[:120]
