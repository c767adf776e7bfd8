"""Validation: what a person sees of good data, of bad data, and of data that has moved."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlpipelines.errors import ConfigError
from mlpipelines.validation.accepted import last_accepted
from mlpipelines.validation.schemas import accept_schema, domain_of, load_schema

Payments = Callable[..., pa.Table]
Rejections = Callable[[Any], dict[tuple[str, str], dict[str, Any]]]


def replaced(table: pa.Table, column: str, where: Callable[[np.ndarray], np.ndarray], value: object) -> pa.Table:
    """`column` set to `value` where `where(row numbers)` holds."""
    mask = where(np.arange(table.num_rows))
    old = table[column].to_pylist()
    array = pa.array([value if hit else was for hit, was in zip(mask, old, strict=True)], table[column].type)
    return table.set_column(table.column_names.index(column), column, array)


def test_without_a_schema_one_is_proposed_and_nothing_else_happens(bench: Any, payments: Payments) -> None:
    error = bench.refused(payments(), accept_schema=False)
    assert str(error).endswith(f"read {bench.state.proposed_schema}, then accept it with `millrace schema accept {bench.project_dir}`")
    assert domain_of(load_schema(bench.state.proposed_schema), "currency") == ("EUR", "GBP", "USD")
    assert not bench.schema_file.exists()
    assert not bench.state.accepted_statistics.exists()
    assert "Waiting for a review" in (bench.last_run / "validation.html").read_text()


def test_an_accepted_proposal_lets_the_same_data_pass(bench: Any, payments: Payments) -> None:
    bench.refused(payments(), accept_schema=False)
    accept_schema(bench.project, bench.project_dir, bench.state)
    run = bench.run(payments(), accept_schema=False)
    assert (run / "schema.pbtxt").read_bytes() == bench.schema_file.read_bytes()
    assert "Accepted." in (run / "validation.html").read_text()


def test_accepting_at_once_takes_one_run_and_remembers_the_data(bench: Any, payments: Payments) -> None:
    run = bench.run(payments())
    last = last_accepted(bench.state)
    assert last is not None
    assert last.content_hash == json.loads((run / "data" / "manifest.json").read_text())["content_hash"]
    assert last.classes is not None
    assert sum(last.classes.counts.values()) == 2000
    assert not bench.state.proposed_schema.exists()


def test_fresh_data_of_the_same_kind_passes_again_and_again(bench: Any, payments: Payments) -> None:
    for seed, rows in enumerate((2000, 1500, 2500, 400)):
        bench.run(payments(rows, seed=seed))
    assert len(list(bench.state.accepted_statistics.glob("*/whole.pb"))) == 4


def test_the_same_data_twice_is_accepted_twice(bench: Any, payments: Payments) -> None:
    bench.run(payments())
    bench.run(payments())
    assert len(list(bench.state.accepted_statistics.glob("*/whole.pb"))) == 1


def test_broken_data_is_never_accepted_with_its_schema(bench: Any, payments: Payments, rejections: Rejections) -> None:
    error = bench.refused(payments(category=pa.array(["food"] * 2000)))
    assert ("category", "one class only") in rejections(error)
    assert not bench.schema_file.exists()
    assert not bench.state.accepted_statistics.exists()


def test_new_values_are_refused_with_their_share_and_examples(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments())
    error = bench.refused(replaced(payments(seed=1), "currency", lambda row: row % 10 == 0, "DOGE"))
    row = rejections(error)["currency", "not in the domain"]
    assert row["rows"] == pytest.approx(0.1)
    assert row["examples"] == ["DOGE"]
    assert str(error).endswith(f"`millrace schema diff {bench.project_dir}`")
    assert domain_of(load_schema(bench.state.proposed_schema), "currency") == ("DOGE", "EUR", "GBP", "USD")
    page = (bench.last_run / "validation.html").read_text()
    assert "Rejected" in page
    assert "DOGE" in page


def test_a_few_new_values_of_a_feature_only_warn(bench: Any, payments: Payments) -> None:
    bench.run(payments())
    run = bench.run(replaced(payments(seed=1), "currency", lambda row: row < 3, "CHF"))
    assert "Worth a look" in (run / "validation.html").read_text()
    assert "CHF" in (run / "validation.html").read_text()


def test_a_new_class_is_refused_however_rare(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments())
    error = bench.refused(replaced(payments(seed=1), "category", lambda row: row == 5, "gambling"))
    assert rejections(error)["category", "not in the domain"]["examples"] == ["gambling"]


def test_a_renamed_column_reads_as_one(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments())
    table = payments(seed=1)
    found = rejections(bench.refused(table.rename_columns(["shop" if name == "merchant" else name for name in table.column_names])))
    assert "renamed?" in found["merchant", "column missing"]["what"]
    assert len(found["shop", "column not in the schema"]["examples"]) == 3


def test_a_wrong_type_is_refused(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments())
    found = rejections(bench.refused(payments(seed=1, amount=pa.array([f"{i} GBP" for i in range(2000)]))))
    assert found["amount", "wrong type"]["examples"][0] == "0 GBP"


def test_a_column_without_any_value_is_refused_even_on_the_first_run(bench: Any, payments: Payments, rejections: Rejections) -> None:
    error = bench.refused(payments(merchant=pa.nulls(2000, pa.string())))
    row = rejections(error)["merchant", "all missing"]
    assert row["rows"] == 1
    assert row["examples"][0] == "__key key-0-0"
    assert len(row["examples"]) == 3
    assert str(error).endswith(f"Correct the rows at their source, then `millrace run {bench.project_dir}`")


def test_rows_without_a_label_are_refused(bench: Any, payments: Payments, rejections: Rejections) -> None:
    found = rejections(bench.refused(replaced(payments(), "category", lambda row: row % 100 == 0, None)))
    assert found["category", "label missing"]["rows"] == pytest.approx(0.01)


def test_missing_values_that_become_many_are_refused(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments())
    found = rejections(bench.refused(replaced(payments(seed=1), "amount", lambda row: row % 2 == 0, None)))
    assert found["amount", "missing share"]["rows"] == pytest.approx(0.52, abs=0.02)
    assert ("amount", "value missing") in found


def test_missing_integers_are_refused(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments())
    found = rejections(bench.refused(replaced(payments(seed=1), "day", lambda row: row == 7, None)))
    assert found["day", "value missing"]["examples"] == ["__key key-1-7"]


def test_ten_times_the_rows_are_refused_until_somebody_says_they_are_right(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments(300))
    error = bench.refused(payments(3000, seed=1))
    assert "more than 8 times" in rejections(error)["(rows)", "growth"]["what"]
    assert str(error).endswith("--set validation.max_growth=1000`")
    bench.settings["validation"] = {"max_growth": 1000}
    bench.run(payments(3000, seed=1))


def test_a_split_without_rows_is_refused(bench: Any, payments: Payments, rejections: Rejections) -> None:
    found = rejections(bench.refused(payments(), payments().slice(0, 0)))
    assert "validation split has no row" in found["(rows)", "no rows"]["what"]


def test_rows_from_the_future_are_refused_with_their_times(bench: Any, payments: Payments, rejections: Rejections) -> None:
    error = bench.refused(replaced(payments(), "booked", lambda row: row == 3, 4_102_444_800))
    assert rejections(error)["booked", "in the future"]["examples"] == ["2100-01-01T00:00:00Z"]
    bench.settings["validation"] = {"future_hours": None}
    bench.run(replaced(payments(), "booked", lambda row: row == 3, 4_102_444_800))


def test_an_amount_in_another_currency_is_drift_that_can_be_let_pass_once(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments())
    drifted = payments(seed=1)
    grown = pa.array(np.asarray(drifted["amount"].to_numpy(zero_copy_only=False)) * 100, pa.float32(), from_pandas=True)
    drifted = drifted.set_column(1, "amount", grown)
    error = bench.refused(drifted)
    row = rejections(error)["amount", "drift"]
    assert "Jensen-Shannon" in row["what"]
    assert len(row["examples"]) == 3
    assert str(error).endswith(f"`millrace run {bench.project_dir} --set validation.columns.amount=1`")
    bench.settings["validation"] = {"columns": {"amount": 1}}
    bench.run(drifted)
    bench.settings.clear()
    bench.run(drifted)


def test_new_merchants_are_drift(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments())
    merchants = np.random.default_rng(5).integers(0, 100, 2000).astype(str)
    found = rejections(bench.refused(payments(seed=1, merchant=pa.array([f"new {name}" for name in merchants]))))
    assert found["merchant", "drift"]["examples"][0].startswith("new ")


def test_a_column_that_may_move_is_not_compared(bench: Any, payments: Payments) -> None:
    bench.settings["validation"] = {"ignore": ["merchant"]}
    bench.run(payments())
    bench.run(payments(seed=1, merchant=pa.array(["somebody else"] * 2000)))


def test_splits_that_differ_are_skewed(bench: Any, payments: Payments, rejections: Rejections) -> None:
    found = rejections(bench.refused(payments(2000), payments(300, seed=1, currency=pa.array(["EUR"] * 300))))
    assert found["currency", "skew"]["examples"]
    bench.settings["validation"] = {"skew": None}
    bench.run(payments(2000), payments(300, seed=1, currency=pa.array(["EUR"] * 300)))


def test_a_class_that_vanished_is_refused(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.run(payments())
    error = bench.refused(payments(seed=1, category=pa.array(np.random.default_rng(1).choice(["food", "fuel"], size=2000))))
    assert rejections(error)["category", "class vanished"]["examples"] == ["travel"]
    assert ("category", "drift") not in rejections(error)


@pytest.mark.parametrize(
    ("label", "values"),
    [
        ({"column": "category", "kind": "classes"}, [["red"], ["blue", "red"], [], ["green"]]),
        ({"column": "category", "kind": "flag", "positive": "yes"}, ["yes", "no", "no", "no"]),
        ({"column": "category", "kind": "number"}, [1.5, 2.5, 3.0, 4.25]),
    ],
)
def test_every_kind_of_label_passes_and_passes_again(bench: Any, payments: Payments, label: dict[str, str], values: list[Any]) -> None:
    bench.settings["label"] = label
    random = np.random.default_rng(0)
    for seed in range(2):
        drawn = pa.array([values[i] for i in random.integers(0, 4, 2000)])
        bench.run(payments(seed=seed, category=drawn))


def test_a_number_flag_beyond_one_is_out_of_range(bench: Any, payments: Payments, rejections: Rejections) -> None:
    bench.settings |= {
        "label": {"column": "fraud", "kind": "flag"},
        "context": {"fraud": "integer", "category": "string"},
        "task": "detection",
    }
    flags = pa.array(np.arange(2000) % 4 // 3)
    bench.run(payments(fraud=flags))
    found = rejections(bench.refused(replaced(payments(fraud=flags), "fraud", lambda row: row == 9, 7)))
    assert found["fraud", "out of range"]["examples"] == ["7"]


def test_a_label_that_only_evaluates_only_warns(bench: Any, payments: Payments) -> None:
    bench.settings |= {"label": {"column": "category", "use": "evaluation"}, "task": "detection"}
    bench.run(payments(category=pa.array(["normal"] * 2000)))
    assert "one class only" in (bench.last_run / "validation.html").read_text()


def test_images_and_broken_text_pass(bench: Any, payments: Payments) -> None:
    bench.settings["features"] = {"merchant": "string", "image": "bytes"}
    bench.settings["context"] = {"amount": "float", "currency": "string", "day": "integer"}
    odd = pa.array([b"\xff\xfe broken", b"nul \0 inside"] * 1000).view(pa.string())
    table = payments(image=pa.array([bytes([i % 256]) * 50 for i in range(2000)]), merchant=odd)
    bench.run(table)
    bench.run(table)


def test_a_refusal_leaves_everything_as_it_was(bench: Any, payments: Payments) -> None:
    bench.run(payments())
    before = {path: path.read_bytes() for path in bench.root.rglob("*") if path.is_file()}
    bench.refused(replaced(payments(seed=1), "category", lambda row: row == 5, "gambling"))
    after = {path: path.read_bytes() for path in before}
    assert after == before
    assert not (bench.last_run / "schema.pbtxt").exists()


def test_a_refusal_names_the_source_and_what_was_mended_on_the_way_in(bench: Any, payments: Payments) -> None:
    bench.run(payments())
    broken = replaced(payments(), "currency", lambda n: n < 300, "EU\ufffd")
    error = bench.refused(broken, repaired={"currency": {"broken_utf8": 300}})
    first, *lines = str(error).splitlines()
    assert first == "The data from rows is refused:"
    assert "  mended before: column 'currency': 300 values were not UTF-8; their broken bytes became U+FFFD" in lines


def test_a_reviewed_schema_that_is_none_says_where(bench: Any, payments: Payments) -> None:
    bench.project_dir.mkdir()
    bench.schema_file.write_text("feature { name: 'x'")
    with pytest.raises(ConfigError, match=r"schema.pbtxt is not a schema"):
        bench.run(payments())


def test_validating_imports_neither_tensorflow_nor_beam() -> None:
    code = "import sys, mlpipelines.steps.validate; print([m for m in ('tensorflow', 'apache_beam', 'pandas', 'kfp') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
