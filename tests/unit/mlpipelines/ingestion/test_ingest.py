"""`ingest` from a Parquet file to splits on disk: what is sealed stays sealed, what is wrong changes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ingested_payments import DAY, Place, payments, project
from mlpipelines.artifacts import KEY
from mlpipelines.errors import ConfigError, Conflict, DataRejected
from mlpipelines.ingestion.manifest import read_manifest
from mlpipelines.project import Project
from mlpipelines.project_file import to_json


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_row_lands_in_exactly_one_split(place: Place) -> None:
    manifest = place.ingest(payments())
    keys = [place.keys(split) for split in ("train", "validation", "test")]
    assert sum(map(len, keys)) == len(set.union(*keys)) == 1000
    assert [len(found) for found in keys] == [manifest.rows[split] for split in ("train", "validation", "test")]
    assert manifest.split["disjoint"]["shared"] == {"train/validation": 0, "train/test": 0, "validation/test": 0}
    assert manifest.rows["validation"] >= 0.1 * manifest.rows["train"]


def test_only_named_columns_are_written_in_canonical_types(place: Place) -> None:
    place.ingest(payments())
    schema = place.rows("train").schema
    assert {field.name: str(field.type) for field in schema} == {
        "merchant": "string", "amount": "float", "team": "string", "customer": "string",
        "booked": "int64", "id": "string", "category": "string", KEY: "string",
    }  # fmt: skip
    assert place.rows("test").schema.equals(schema)
    assert all(b"4929" not in file.read_bytes() for file in place.root.rglob("*.parquet") if file.name != "rows.parquet")


def test_rows_lie_in_a_folder_for_each_month_sorted_by_time_and_key(place: Place) -> None:
    manifest = place.ingest(payments())
    assert (
        [span.name for span in place.data.spans("train")] == ["2020-01", "2020-02", "2020-03", "2020-04"] == list(manifest.spans["train"])
    )
    for file in place.data.files("train"):
        rows = pq.read_table(file, partitioning=None)
        assert rows.equals(rows.sort_by([("booked", "ascending"), (KEY, "ascending")]))
        assert manifest.spans["train"][file.parent.name].rows == rows.num_rows


def test_without_a_time_there_is_one_span(place: Place) -> None:
    manifest = place.ingest(payments(), project(time=None))
    assert list(manifest.spans["train"]) == ["all"]
    assert manifest.window == {"since": None, "until": None, "oldest": None, "newest": None}


def test_the_content_hash_is_a_function_of_the_rows_not_of_any_order(place: Place) -> None:
    rows = payments()
    first = place.ingest(rows)
    shuffled = rows.take(pa.array(np.random.default_rng(1).permutation(1000)))
    assert place.ingest(shuffled).content_hash == first.content_hash
    reordered = project(features={"amount": "float", "merchant": "string"})
    assert place.ingest(shuffled, reordered).content_hash == first.content_hash
    changed = shuffled.set_column(3, "amount", pc.add(shuffled["amount"], 1.0))
    assert place.ingest(changed).content_hash != first.content_hash


def test_a_new_month_leaves_the_files_of_earlier_months_alone(place: Place) -> None:
    stratified = project(split={"stratify": "category", "balance": "team"})
    first = place.ingest(payments(750), stratified)
    second = place.ingest(payments(1000), stratified)
    for split in ("train", "validation"):
        closed = list(first.spans[split])[:-1]
        assert closed
        assert {span: first.spans[split][span] for span in closed} == {span: second.spans[split][span] for span in closed}


def test_the_test_set_is_sealed_once_and_later_rows_are_trained_on(place: Place) -> None:
    first = place.ingest(payments(600))
    sealed = place.keys("test")
    second = place.ingest(payments(1000))
    assert (first.sealed["first_run"], second.sealed["first_run"]) == (True, False)
    assert place.keys("test") == sealed
    assert second.rows["train"] + second.rows["validation"] == 1000 - len(sealed)
    assert place.test.rows.read_bytes() == (place.state.sealed / "test.parquet").read_bytes()


def test_a_manifest_can_be_read_back(place: Place) -> None:
    manifest = place.ingest(payments())
    assert read_manifest(place.data.manifest) == manifest
    assert manifest.classes == {"food": manifest.classes["food"], "travel": manifest.classes["travel"], "books": manifest.classes["books"]}
    assert sum(manifest.classes.values()) == manifest.rows["train"]


def test_a_group_stays_on_its_side_for_ever(place: Place) -> None:
    grouped = project(split={"by": "group", "group": "customer"})
    place.ingest(payments(500), grouped)
    manifest = place.ingest(payments(1000), grouped)
    customers = [set(place.rows(split)["customer"].to_pylist()) for split in ("train", "validation", "test")]
    assert sum(map(len, customers)) == len(set.union(*customers))
    assert manifest.dropped["sealed_group"] > 0
    assert manifest.split["disjoint"]["by"] == "customer"


def said_parts(count: int, period: int = 5) -> pa.Table:
    """Payments of which the source itself says who trains: of `period`, one validation (as some tables spell it) and one test row."""
    parts = [{0: "test", 1: "valid"}.get(number % period, "train") for number in range(count)]
    return payments(count).append_column("part", pa.array(parts))


def by_part() -> Project:
    return project(split={"by": "column", "column": "part"}, context={"part": "string"})


def test_a_column_of_the_source_says_who_trains_and_who_judges(place: Place) -> None:
    manifest = place.ingest(said_parts(500), by_part())
    assert dict(manifest.rows) == {"train": 300, "validation": 100, "test": 100}
    assert place.keys("test") == {f"p{number}" for number in range(0, 500, 5)}
    assert set(place.rows("validation")["part"].to_pylist()) == {"valid"}


def test_a_later_row_that_is_said_to_be_for_the_test_neither_judges_nor_trains(place: Place) -> None:
    place.ingest(said_parts(500), by_part())
    sealed = place.keys("test")
    manifest = place.ingest(said_parts(1000), by_part())
    assert place.keys("test") == sealed
    assert manifest.dropped["sealed_group"] == 100
    assert "test" not in {*place.rows("train")["part"].to_pylist(), *place.rows("validation")["part"].to_pylist()}


def test_a_column_that_says_something_else_is_named_with_what_it_says(place: Place) -> None:
    rows = said_parts(500).to_pylist()
    rows[7]["part"] = "holdout"
    with pytest.raises(DataRejected, match=r"'part'.*'holdout' in 1 rows"):
        place.ingest(pa.Table.from_pylist(rows, schema=said_parts(1).schema), by_part())
    with pytest.raises(ConfigError, match="at least a tenth"):
        place.ingest(said_parts(500, period=50), by_part())


def test_by_time_the_newest_rows_of_the_first_run_judge_and_those_of_later_runs_train(place: Place) -> None:
    by_time = project(split={"by": "time", "test_from": "2020-02-15"})
    place.ingest(payments(600), by_time)
    sealed = place.keys("test")
    assert pc.min(place.rows("test")["booked"]).as_py() == midnight(2020, 2, 15)
    place.ingest(payments(1000), by_time)
    assert place.keys("test") == sealed
    assert "p999" in place.keys("train") | place.keys("validation")


def test_days_near_to_the_sealed_ones_are_not_trained_on_before_or_after_them(place: Place) -> None:
    apart = project(split={"by": "time", "test_from": "2020-02-15", "gap_days": 5})
    place.ingest(payments(600), apart)
    sealed, first, last = place.keys("test"), midnight(2020, 2, 15), pc.max(place.rows("test")["booked"]).as_py()
    manifest = place.ingest(payments(1000), apart)
    learned = pa.concat_arrays([place.rows(split)["booked"].combine_chunks() for split in ("train", "validation")])
    before, after = learned.filter(pc.less(learned, first)), learned.filter(pc.greater(learned, last))
    assert place.keys("test") == sealed
    assert pc.max(before).as_py() <= first - 5 * DAY
    assert pc.min(after).as_py() >= last + 5 * DAY
    assert len(before) + len(after) + manifest.dropped["near_sealed"] == 1000 - len(sealed)
    assert min(len(before), len(after), manifest.dropped["near_sealed"]) > 0
    with pytest.raises(ConfigError, match="gap_days is about time"):
        project(split={"by": "row", "gap_days": 5})


def midnight(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


def test_exact_repeats_without_a_key_are_rows_of_their_own_and_stay_sealed(place: Place) -> None:
    rows = payments(300).drop_columns(["id"])
    keyless = project(key=None)
    first = place.ingest(pa.concat_tables([rows, rows]), keyless)
    assert sum(first.rows.values()) == 600
    sealed = place.keys("test")
    second = place.ingest(pa.concat_tables([rows, payments(600).drop_columns(["id"])]), keyless)
    assert sum(second.rows.values()) == 900
    assert not (place.keys("train") | place.keys("validation")) & sealed


def test_a_window_reads_its_rows_only(place: Place) -> None:
    manifest = place.ingest(payments(), since=datetime(2020, 2, 1, tzinfo=UTC), until=datetime(2020, 3, 1, tzinfo=UTC))
    assert manifest.window["since"] == "2020-02-01T00:00:00Z"
    assert "2020-02-01" <= (manifest.window["oldest"] or "") < (manifest.window["newest"] or "") < "2020-03-01"
    assert manifest.read == sum(manifest.rows.values())


def test_the_last_days_are_counted_back_from_the_newest_row(place: Place) -> None:
    manifest = place.ingest(payments(), project(source={"kind": "parquet", "path": "rows.parquet", "window_days": 30}))
    assert manifest.read == 250
    assert manifest.window["newest"] == "2020-04-29T21:07:12Z"


def test_a_row_from_the_future_does_not_push_the_window_away(place: Place) -> None:
    rows = payments()
    booked = rows["booked"].cast(pa.int64()).to_pylist()
    now = int(datetime.now(UTC).timestamp())
    recent = [now - (999 - i) * DAY // 10 for i in range(999)] + [now + 10_000 * DAY]
    assert len(recent) == len(booked)
    manifest = place.ingest(
        rows.set_column(1, "booked", pa.array(recent, pa.timestamp("s"))),
        project(source={"kind": "parquet", "path": "rows.parquet", "window_days": 30}),
    )
    assert manifest.read > 290


def test_rare_classes_are_folded_alike_in_every_run_and_split(place: Place) -> None:
    folding = project(label={"column": "category", "min_rows": 20})
    rows = payments()
    names = ["rare" if n % 100 == 1 else name for n, name in enumerate(rows["category"].to_pylist())]
    rows = rows.set_column(7, "category", pa.array(names))
    assert "rare" not in place.ingest(rows, folding).classes
    assert "rare" not in set(place.rows("test")["category"].to_pylist())
    more = pa.concat_tables(
        [
            rows,
            rows.slice(0, 200)
            .set_column(0, "id", pa.array([f"x{n}" for n in range(200)]))
            .set_column(7, "category", pa.array(["rare"] * 200)),
        ]
    )
    manifest = place.ingest(more, folding)
    assert "rare" not in manifest.classes
    assert manifest.classes["other"] > 100
    assert any("class 'rare' now has" in warning and "still folded into 'other'" in warning for warning in manifest.warnings)


def test_near_duplicates_between_the_splits_are_reported(place: Place) -> None:
    manifest = place.ingest(payments(), project(split={"near_duplicates": ["merchant"]}))
    assert manifest.near_duplicates["test"]["share"] == 1.0
    assert manifest.near_duplicates["test"]["examples"][0]["text"] == "shop"


def test_broken_text_is_mended_counted_and_told(place: Place) -> None:
    merchants = [b"caf\xe9 \x00", b"ok"] * 500
    rows = payments().set_column(2, "merchant", pa.array(merchants).cast(pa.string(), safe=False))
    manifest = place.ingest(rows)
    assert manifest.repaired == {"merchant": {"broken_utf8": 500, "nul": 500}}
    assert any("'merchant'" in warning and "not UTF-8" in warning for warning in manifest.warnings)
    assert set(place.rows("train")["merchant"].to_pylist()) == {"caf\N{REPLACEMENT CHARACTER} ", "ok"}


def test_a_feature_without_any_value_is_told_and_a_few_missing_labels_are_dropped(place: Place) -> None:
    rows = payments().set_column(3, "amount", pa.nulls(1000, pa.float64()))
    rows = rows.set_column(7, "category", pa.array([None if n < 30 else name for n, name in enumerate(rows["category"].to_pylist())]))
    manifest = place.ingest(rows)
    assert "column 'amount' has no value in any row" in manifest.warnings
    assert manifest.dropped["label_missing"] == 30


def with_photos(broken: int) -> tuple[pa.Table, Project]:
    """Payments with a photo each, `broken` of which end in the middle."""
    whole = BytesIO()
    Image.new("RGB", (4, 4)).save(whole, "JPEG")
    photos = [whole.getvalue()[: 200 if n < broken else None] for n in range(1000)]
    source = {"kind": "parquet", "path": "rows.parquet", "images": ["photo"]}
    return payments().append_column("photo", pa.array(photos, pa.binary())), project(source=source, features={"photo": "bytes"})


def test_a_few_broken_images_cost_their_own_rows_and_are_named(place: Place) -> None:
    manifest = place.ingest(*with_photos(broken=4))
    assert manifest.dropped["image_broken"] == 4
    assert sum(manifest.rows.values()) == 996
    assert any("'photo': 4 rows hold no image" in warning and "p0, p1, p2, …" in warning for warning in manifest.warnings)


def test_many_broken_images_refuse_the_run_before_anything_is_sealed(place: Place) -> None:
    with pytest.raises(DataRejected, match=r"11 of 1,000 values of the column 'photo' are no images that decode \(1.1%\).*'p0'"):
        place.ingest(*with_photos(broken=11))
    assert not place.state.sealed.exists()


def test_a_missing_image_is_not_a_broken_one(place: Place) -> None:
    rows, of = with_photos(broken=0)
    rows = rows.set_column(8, "photo", pa.array([None, *rows["photo"].to_pylist()[1:]], pa.binary()))
    assert "image_broken" not in place.ingest(rows, of).dropped


def test_only_a_column_of_bytes_can_hold_images() -> None:
    with pytest.raises(ConfigError, match=r"source.images names 'merchant', whose type must be 'bytes'"):
        project(source={"kind": "parquet", "path": "rows.parquet", "images": ["merchant"]})


def test_a_label_that_only_judges_may_be_missing_in_training_but_not_in_the_test_set(place: Place) -> None:
    flags = ["1" if n % 50 == 0 else "0" if n % 2 else None for n in range(1000)]
    judging = project(task="detection", label={"column": "fraud", "kind": "flag", "use": "evaluation"})
    place.ingest(payments().append_column("fraud", pa.array(flags)), judging)
    assert place.rows("test")["fraud"].null_count == 0
    assert place.rows("train")["fraud"].null_count > 300


def test_a_new_feature_is_taken_over_into_the_sealed_rows(place: Place) -> None:
    place.ingest(payments())
    sealed = place.rows("test")
    place.ingest(payments(), project(features={"merchant": "string", "amount": "float", "card": "string"}))
    assert place.rows("test")[KEY].equals(sealed[KEY])
    assert set(place.rows("test")["card"].to_pylist()) == {"4929 0000 0000 0000"}


def test_a_new_feature_that_the_source_cannot_give_for_every_sealed_row_is_refused(place: Place) -> None:
    place.ingest(payments())
    with pytest.raises(DataRejected, match=r"sealed test set .* does not have 'card'.*of its \d+ rows are in this window"):
        place.ingest(payments(500), project(features={"merchant": "string", "amount": "float", "card": "string"}))


def test_without_a_key_other_columns_would_unseal_the_test_set_and_are_refused(place: Place) -> None:
    place.ingest(payments(), project(key=None))
    with pytest.raises(ConfigError, match=r"no longer be recognised and would be trained on.*rm -r"):
        place.ingest(payments(), project(key=None, features={"merchant": "string"}))


def test_a_changed_sealed_file_is_noticed(place: Place) -> None:
    place.ingest(payments())
    sealed = place.state.sealed / "test.parquet"
    sealed.write_bytes(sealed.read_bytes()[:-1] + b"X")
    with pytest.raises(Conflict, match="is not what was sealed"):
        place.ingest(payments())


def test_changed_split_settings_leave_the_sealed_set_and_are_told(place: Place) -> None:
    place.ingest(payments())
    sealed = place.keys("test")
    manifest = place.ingest(payments(), project(split={"test": 0.5}))
    assert place.keys("test") == sealed
    assert any(warning.startswith("split.test changed after the test set was sealed") for warning in manifest.warnings)


FIRST_RUN = """
import sys
from pathlib import Path
from mlpipelines.project_file import from_json
from mlpipelines.steps.ingest import ingest
from mlpipelines.workspace import ProjectState
root, name = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()  # both are imported before either begins
ingest(project=from_json(sys.argv[3]), project_dir=root, state=ProjectState(root / "workspace"), data=root / f"data{name}", test=root / f"test{name}")
"""


def test_of_two_first_runs_at_once_one_seals_and_both_use_it(place: Place) -> None:
    pq.write_table(payments(), place.root / "rows.parquet")
    commands = [[sys.executable, "-c", FIRST_RUN, str(place.root), str(seed), to_json(project(split={"seed": seed}))] for seed in (11, 21)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for command in commands]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
    assert [process.wait() for process in both] == [0, 0]
    tests = [(place.root / f"test{runs}" / "test.parquet").read_bytes() for runs in (11, 21)]
    assert tests[0] == tests[1]
    assert sorted(read_manifest(place.root / f"data{runs}" / "manifest.json").sealed["first_run"] for runs in (11, 21)) == [False, True]


Change = Callable[[pa.Table], pa.Table]


def with_column(name: str, values: Callable[[pa.Table], pa.Array]) -> Change:
    return lambda rows: rows.set_column(rows.schema.get_field_index(name), name, values(rows))


BAD: dict[str, tuple[Change, dict[str, Any], str]] = {
    "a renamed column": (
        lambda r: r.rename_columns({"merchant": "merchant_name"}),
        {},
        r"rows\.parquet lacks a column.*'merchant'.*'merchant_name'",
    ),
    "a wrong type": (
        with_column("amount", lambda r: pa.array(["12,50"] * r.num_rows)),
        {},
        r"rows\.parquet: column 'amount' should be float.*'12,50' in row 1,.*row 2,.*row 3\.",
    ),
    "duplicate keys": (
        lambda r: pa.concat_tables([r, r.slice(0, 2)]),
        {},
        r"2 values of the key 'id' occur more than once: 'p0' \(2 times\)",
    ),
    "a missing key": (
        with_column("id", lambda r: pa.array([None, *r["id"].to_pylist()[1:]])),
        {},
        r"The key 'id' is missing in 1 of 1,000 rows",
    ),
    "no rows": (lambda r: r.slice(0, 0), {}, r"There is no row between the beginning and the end\. Widen"),
    "labels missing": (
        with_column("category", lambda r: pa.array([None] * 100 + r["category"].to_pylist()[100:])),
        {},
        r"The label 'category' is missing in 100 of 1,000 rows \(10\.0%\)",
    ),
    "no label at all": (with_column("category", lambda r: pa.nulls(r.num_rows, pa.string())), {}, r"missing in 1,000 of 1,000"),
    "one class only": (with_column("category", lambda r: pa.array(["food"] * r.num_rows)), {}, r"All training rows have the label 'food'"),
    "times missing": (
        with_column("booked", lambda r: pa.nulls(r.num_rows, pa.timestamp("s"))),
        {},
        r"The time 'booked' is missing in 1,000",
    ),
    "one row": (lambda r: r.slice(0, 1), {}, r"would seal 1 of 1 rows"),
    "all rows newer than test_from": (
        lambda r: r,
        {"split": {"by": "time", "test_from": date(2019, 1, 1)}},
        r"split\.test_from: 2019-01-01\) would seal 1,000 of 1,000",
    ),
    "one group": (
        with_column("customer", lambda r: pa.array(["c"] * r.num_rows)),
        {"split": {"by": "group", "group": "customer"}},
        r"split by group would seal 1,000 of 1,000 rows",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_with_the_next_command_and_change_nothing(place: Place, name: str) -> None:
    change, changes, message = BAD[name]
    with pytest.raises(DataRejected, match=message) as refused:
        place.ingest(change(payments()), project(**changes))
    assert str(refused.value).endswith(f"Then: millrace run {place.root}")
    assert str(refused.value).count("rows.parquet") == 1, "the source, named once"
    assert refused.value.report
    assert not place.state.root.exists()
    assert not place.data.manifest.exists()


def test_an_empty_window_says_which(place: Place) -> None:
    with pytest.raises(DataRejected, match=r"There is no row between 2030-01-01T00:00:00Z and the end"):
        place.ingest(payments(), since=datetime(2030, 1, 1, tzinfo=UTC))


def test_bad_rows_after_good_ones_leave_the_sealed_set_as_it_was(place: Place) -> None:
    place.ingest(payments())
    before = {file.name: file.read_bytes() for file in place.state.sealed.iterdir()}
    with pytest.raises(DataRejected):
        place.ingest(payments().set_column(7, "category", pa.array(["food"] * 1000)))
    assert {file.name: file.read_bytes() for file in place.state.sealed.iterdir()} == before


def test_ten_times_the_rows_are_read(place: Place) -> None:
    place.ingest(payments(1000))
    assert sum(place.ingest(payments(10_000)).rows.values()) == 10_000


def test_a_window_without_a_time_column_is_a_mistake_in_the_project(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"needs `time` in project\.yaml"):
        place.ingest(payments(), project(time=None), since=datetime(2020, 1, 1, tzinfo=UTC))


def test_images_and_lists_of_labels_go_through(place: Place) -> None:
    rows = pa.table(
        {
            "image": pa.array([bytes([n % 256]) * 20 for n in range(400)], pa.binary()),
            "tags": pa.array([[f"t{n % 5}", f"u{n % 3}"][: n % 3] for n in range(400)], pa.list_(pa.string())),
        }
    )
    tagged = project(
        key=None, time=None, task="multilabel", features={"image": "bytes"}, context=None, label={"column": "tags", "kind": "classes"},
        split={"stratify": "tags"},
    )  # fmt: skip
    manifest = place.ingest(rows, tagged)
    assert sum(manifest.rows.values()) == 400
    assert set(manifest.classes) == {"t0", "t1", "t2", "t3", "t4", "u2"}
    assert place.rows("train").schema.field("tags").type == pa.list_(pa.string())
