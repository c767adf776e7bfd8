"""Which rows come in which batch, from plans without files to tensors from Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from mlpipelines.artifacts import LABEL
from mlpipelines.errors import DataRejected
from mlpipelines.project_code import FeatureSpec
from mlpipelines.training.input_pipeline import first_batch, ordered_batches, training_batches
from mlpipelines.training.row_windows import RowGroup, Shard, cut_windows, epoch_order, steps_per_epoch, window_rows
from mlpipelines.training.transformed_rows import LabelSpec, Split, class_weights, label_counts, non_finite_features, open_split

ROWS = 1050
ID = {"id": FeatureSpec(dtype="int64")}


def groups_of(sizes: list[int]) -> list[RowGroup]:
    return [RowGroup(file=Path("rows.parquet"), index=i, rows=size) for i, size in enumerate(sizes)]


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    workers=st.integers(1, 4),
    window=st.integers(1, 70),
    epoch=st.integers(0, 5),
)
def test_workers_get_equally_many_rows_and_no_row_twice(sizes: list[int], workers: int, window: int, epoch: int) -> None:
    groups = epoch_order(groups_of(sizes), seed=1, epoch=epoch)
    seen: list[tuple[int, int]] = []
    for worker in range(workers):
        windows = cut_windows(groups, shard=Shard(worker=worker, workers=workers), rows=window)
        counts = [sum(piece.rows for piece in pieces) for pieces in windows]
        assert sum(counts) == sum(sizes) // workers
        assert all(count == window for count in counts[:-1])
        seen += [(piece.group.index, row) for pieces in windows for piece in pieces for row in range(piece.start, piece.stop)]
    assert len(seen) == len(set(seen)) >= sum(sizes) - workers + 1


@pytest.mark.parametrize(("rows", "batch", "steps"), [(1000, 100, 10), (1099, 100, 10), (99, 100, 1), (0, 100, 0)])
def test_a_partial_batch_is_left_out_unless_it_is_the_only_one(rows: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(rows, batch) == steps


def test_a_window_holds_whole_batches() -> None:
    assert window_rows(1000, 300) == 900
    assert window_rows(10, 300) == 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rows")
    ids = np.arange(ROWS)
    table = pa.table(
        {
            "id": ids,
            "name": pa.array([f"n\u00e9 {i}" if i % 7 else "" for i in ids]),
            "pair": pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(ids, 2).astype(np.float32)), 2),
            "words": pa.FixedSizeListArray.from_arrays(pa.array([b"a", b"b", b"c"] * ROWS), 3),
            LABEL: ids % 3,
        }
    )
    pq.write_table(table.slice(0, 600), root / "a.parquet", row_group_size=128)
    pq.write_table(table.slice(600), root / "b.parquet", row_group_size=100)
    return root


def open_ids(folder: Path, label: LabelSpec | None = None) -> Split:
    return open_split(sorted(folder.glob("*.parquet")), ID, label)


def ids_of(dataset: tf.data.Dataset, batches: int) -> list[list[int]]:
    return [batch[0]["id"].numpy().tolist() for batch in dataset.take(batches)]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def stream(folder: Path, **changes: Any) -> tf.data.Dataset:
    return training_batches(open_ids(folder), **{"batch_size": 100, "shuffle_rows": 300, "seed": 3, **changes})


def test_an_epoch_has_every_row_at_most_once_and_the_next_one_another_order(folder: Path) -> None:
    first, second = (flat(epoch) for epoch in (ids_of(stream(folder), 10), ids_of(stream(folder, epoch=1), 10)))
    assert len(set(first)) == len(set(second)) == 1000
    assert first != second
    assert set(first) != set(second)
    assert first != sorted(first)


def test_batches_depend_on_seed_and_epoch_only(folder: Path) -> None:
    assert ids_of(stream(folder), 25) == ids_of(stream(folder), 25)
    assert ids_of(stream(folder), 10) != ids_of(stream(folder, seed=4), 10)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 9])
def test_a_stream_can_begin_at_any_step(folder: Path, step: int) -> None:
    assert ids_of(stream(folder, epoch=1, step=step), 12) == ids_of(stream(folder), 22 + step)[10 + step :]


def test_two_workers_share_an_epoch(folder: Path) -> None:
    parts = [flat(ids_of(stream(folder, shard=Shard(worker=w, workers=2)), 5)) for w in range(2)]
    assert len(parts[0]) == len(parts[1]) == 500
    assert len(set(parts[0] + parts[1])) == 1000


def test_fewer_rows_than_a_batch_are_one_batch(folder: Path) -> None:
    assert [len(ids) for ids in ids_of(stream(folder, batch_size=5000), 2)] == [ROWS, ROWS]


def test_training_batches_have_a_size_that_is_known_beforehand(folder: Path) -> None:
    dataset = stream(folder)
    assert dataset.element_spec[0]["id"].shape == [100]
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


def test_validation_comes_in_order_and_whole(folder: Path) -> None:
    batches = ids_of(ordered_batches(open_ids(folder), batch_size=100), 20)
    assert flat(batches) == list(range(ROWS))
    assert len(batches[-1]) == 50


def test_without_a_label_a_batch_is_features_only(folder: Path) -> None:
    assert len(next(iter(stream(folder)))) == 1
    assert len(next(iter(ordered_batches(open_ids(folder), batch_size=10)))) == 1


def test_strings_and_lists_pass_as_they_are(folder: Path) -> None:
    features = {
        "name": FeatureSpec(dtype="string"),
        "pair": FeatureSpec(dtype="float32", shape=(2,)),
        "words": FeatureSpec(dtype="string", shape=(3,)),
        **ID,
    }
    split = open_split(sorted(folder.glob("*.parquet")), features, LabelSpec(kind="class", classes=3))
    for rows, label in training_batches(split, batch_size=64, shuffle_rows=300, seed=1).take(16):
        ids = rows["id"].numpy()
        assert rows["name"].numpy().tolist() == [f"n\u00e9 {i}".encode() if i % 7 else b"" for i in ids]
        assert np.array_equal(rows["pair"].numpy(), np.stack([ids, ids], axis=1))
        assert rows["words"].numpy().tolist() == [[b"a", b"b", b"c"]] * 64
        assert np.array_equal(label.numpy(), ids % 3)
    assert first_batch(split, rows=5)[0]["name"].shape == [5]


def test_lists_of_classes_become_zeros_and_ones(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [0, 1, 2], LABEL: pa.array([[0, 2], [], [1]], pa.list_(pa.int64()))}), tmp_path / "a.parquet")
    split = open_ids(tmp_path, LabelSpec(kind="classes", classes=3))
    ((_, label),) = list(ordered_batches(split, batch_size=9))
    assert label.numpy().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert label_counts(split).tolist() == [1, 1, 1]


def test_a_row_weighs_as_much_as_its_class_says(folder: Path) -> None:
    split = open_ids(folder, LabelSpec(kind="class", classes=3))
    assert label_counts(split).tolist() == [350, 350, 350]
    batches = training_batches(split, batch_size=100, shuffle_rows=300, seed=1, weights=np.array([1, 2, 4], np.float32))
    _, label, weight = next(iter(batches))
    assert np.array_equal(weight.numpy(), 2.0 ** label.numpy())


def test_class_weights_are_inverse_frequencies_that_average_to_one() -> None:
    counts = np.array([900, 100, 0])
    balanced, root = class_weights(counts, "balanced"), class_weights(counts, "sqrt")
    assert balanced is not None
    assert root is not None
    assert balanced[1] / balanced[0] == pytest.approx(9)
    assert root[1] / root[0] == pytest.approx(3)
    for weights in (balanced, root):
        assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert class_weights(counts, "none") is None


def test_values_that_are_no_numbers_are_counted_by_feature(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": pa.array([1.0, np.nan, np.inf], pa.float32()), "b": pa.array([1.0] * 3, pa.float32())}), tmp_path / "a.parquet"
    )
    split = open_split([tmp_path / "a.parquet"], {n: FeatureSpec(dtype="float32") for n in "ab"}, None)
    assert non_finite_features(split) == {"a": 2}


def test_a_file_that_is_cut_off_is_named(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataRejected, match=r"a\.parquet cannot be read as Parquet"):
        open_ids(tmp_path)


def test_a_column_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DataRejected, match="no column nothing"):
        open_split([folder / "a.parquet"], {"nothing": FeatureSpec(dtype="int64")}, None)
