"""A row's identity depends on the row alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mlpipelines.ingestion.row_keys import content_hashes, content_keys, mixed, repeated, text_hashes

ROWS = pa.table(
    {
        "text": ["a", "b", "a", None],
        "number": pa.array([1, 2, 1, None], pa.int64()),
        "float": pa.array([0.5, None, 0.5, 0.0], pa.float32()),
        "list": pa.array([["x", "y"], ["y", "x"], ["x", "y"], None], pa.list_(pa.string())),
        "bytes": [b"1", b"1", b"1", b""],
    }
)


def test_identical_rows_get_ordinals_and_others_their_own_key() -> None:
    keys = content_keys(ROWS).to_pylist()
    assert keys[2] == f"{keys[0]}-2"
    assert len(set(keys)) == 4


def test_the_order_of_columns_does_not_matter() -> None:
    assert content_keys(ROWS.select(ROWS.column_names[::-1])).equals(content_keys(ROWS))


def test_keys_stay_what_they_are_over_releases() -> None:
    """Sealed test sets without a key column are recognised by these: a change here trains on sealed rows."""
    assert content_keys(pa.table({"a": ["x"], "b": pa.array([1], pa.int64())})).to_pylist() == ["004a8b4c37f01e51"]


def test_how_a_table_is_cut_into_batches_does_not_matter() -> None:
    cut = pa.concat_tables([ROWS.slice(0, 1), ROWS.slice(1, 2), ROWS.slice(3)])
    assert content_keys(cut).equals(content_keys(ROWS))


def test_an_empty_list_is_not_a_missing_one_and_order_counts() -> None:
    lists = pa.array([[], None, [""], ["a", "b"], ["b", "a"]], pa.list_(pa.string()))
    assert len(set(content_hashes(pa.table({"l": lists})).tolist())) == 5


def test_repeated_keys_are_counted_with_examples() -> None:
    assert repeated(pa.array(["a", "b", "a", "c", "c", "c"])) == (2, [("a", 2), ("c", 3)])
    assert repeated(pa.array(["a", "b"])) == (0, [])


def test_seeds_and_purposes_give_independent_numbers() -> None:
    keys = pa.array([f"k{i}" for i in range(20_000)])
    one, other = text_hashes(keys, "1"), text_hashes(keys, "2")
    drawn = [h / 2.0**64 for h in (one, other, mixed(one, "test"), mixed(one, "validation"))]
    correlations = np.asarray(np.corrcoef(drawn))[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 0.03
    assert all(abs(d.mean() - 0.5) < 0.01 for d in drawn)


@given(st.lists(st.tuples(st.one_of(st.none(), st.text(max_size=3)), st.integers(0, 3)), min_size=1), st.randoms())
def test_equal_rows_have_equal_keys_in_any_order(rows: list[tuple[str | None, int]], random: Any) -> None:
    def keys(values: list[tuple[str | None, int]]) -> list[str]:
        columns = {"t": pa.array([t for t, _ in values], pa.string()), "n": pa.array([n for _, n in values], pa.int64())}
        return sorted(content_keys(pa.table(columns)).to_pylist())

    shuffled = list(rows)
    random.shuffle(shuffled)
    assert keys(rows) == keys(shuffled)
    assert len(set(keys(rows))) == len(rows)
