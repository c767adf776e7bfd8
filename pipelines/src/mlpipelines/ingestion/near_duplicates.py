"""Rows of different splits that say the same thing in slightly different letters.

Two card descriptors that differ in a terminal number are different rows with different keys, and a model that has learned
one by heart gets the other right. How many test and validation rows are like that belongs beside every score. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

EXAMPLES = 5
_SHOWN = 24
_SEPARATOR = "\x1f"
_NOISE = r"[\d\pP\pS\pZ\s]+"


def near_duplicates(columns: Sequence[str], splits: Mapping[str, pa.Table]) -> dict[str, Any]:
    """How many validation and test rows have the normalised text of a training row.

    Args:
        columns: whose texts are joined and compared; none: nothing is.
        splits: `train`, and those compared with it.

    Returns:
        `{"columns": […], "<split>": {"rows": n, "share": x, "distinct": n, "examples": [{"text", "sha256", "rows"}]}}`. Rows
        whose text is empty once normalised agree with nothing. Example texts are cut to 24 characters, with a hash of the whole.
    """
    report: dict[str, Any] = {"columns": list(columns)}
    if not columns:
        return report
    trained_on = normalised(columns, splits["train"]).unique()
    for name, rows in splits.items():
        if name != "train":
            report[name] = _agreement(normalised(columns, rows), trained_on)
    return report


def normalised(columns: Sequence[str], rows: pa.Table) -> pa.ChunkedArray:
    """The texts of `columns` in lower case, with runs of digits, punctuation and space as one space; null where nothing is left."""
    parts = [_normalised(rows[name].combine_chunks()) for name in columns]
    if len(parts) == 1:
        return pa.chunked_array([_null_if(pc.equal(parts[0], ""), parts[0])])
    joined = pc.binary_join_element_wise(*parts, _SEPARATOR)
    return pa.chunked_array([_null_if(pc.equal(pc.binary_length(joined), len(parts) - 1), joined)])


def _normalised(texts: pa.Array) -> pa.Array:
    """Each distinct text is normalised once: columns worth comparing repeat themselves."""
    if isinstance(texts, pa.ChunkedArray):
        texts = pa.concat_arrays(texts.chunks)
    encoded = texts.cast(pa.string()).dictionary_encode()
    distinct = pc.replace_substring_regex(pc.utf8_lower(encoded.dictionary), _NOISE, " ")
    return pc.fill_null(pc.utf8_trim_whitespace(distinct).take(encoded.indices), "")


def _null_if(condition: pa.Array, texts: pa.Array) -> pa.Array:
    return pc.if_else(condition, pa.scalar(None, pa.string()), texts)


def _agreement(texts: pa.ChunkedArray, trained_on: pa.Array) -> dict[str, Any]:
    agreeing = texts.filter(pc.and_(pc.is_valid(texts), pc.is_in(texts, value_set=trained_on)))
    counts = pc.value_counts(agreeing)
    frequent = counts.take(pc.sort_indices(pc.negate(counts.field("counts")))[:EXAMPLES]).to_pylist()
    return {
        "rows": len(agreeing),
        "share": round(len(agreeing) / len(texts), 6) if len(texts) else 0.0,
        "distinct": len(counts),
        "examples": [_example(str(item["values"]), int(item["counts"])) for item in frequent],
    }


def _example(text: str, rows: int) -> dict[str, Any]:
    shown = text.replace(_SEPARATOR, " · ")
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
    return {"text": shown, "sha256": hashlib.sha256(text.encode()).hexdigest()[:16], "rows": rows}
