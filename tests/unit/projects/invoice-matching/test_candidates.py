"""Blocking finds what belongs together, the same on Beam as in one process, and rows say what was known when the month began."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpipelines.errors import ConfigError

Code = Callable[[str], ModuleType]
SETTLED = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def ledger(code: Code) -> Any:
    return code("generator").ledger(invoices=700, days=240, seed=3)


@pytest.fixture(scope="module")
def rows(code: Code) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pa.Table.from_batches(code("pairs").rows(generated={"invoices": 700, "days": 240, "seed": 3})).to_pylist()
    return found


def test_nearly_every_true_pair_is_a_candidate_and_few_others_are(code: Code, ledger: Any, rows: list[dict[str, Any]]) -> None:
    true = sum(match["invoice_id"] is not None for match in ledger.matches.to_pylist())
    assert sum(row["matched"] for row in rows) > 0.94 * true
    assert len(rows) <= code("blocking").Limits().candidates * ledger.transfers.num_rows
    assert len({row["pair_id"] for row in rows}) == len(rows)


def test_beam_finds_the_same_candidates_whatever_the_number_of_shards(code: Code, ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blocking, on_beam = code("blocking"), code("beam_blocking")
    monkeypatch.setattr(on_beam, "CHUNK_ROWS", 300)
    here = blocking.found(ledger, blocking.Limits())
    for shards in (1, 7):
        assert np.array_equal(here, on_beam.found(ledger, blocking.Limits(), beam={}, shards=shards))


def test_pairs_come_back_by_the_folder_that_beam_s_workers_share(code: Code, ledger: Any, tmp_path: Path) -> None:
    blocking, on_beam = code("blocking"), code("beam_blocking")
    shared = tmp_path / "shared"
    found = on_beam.found(ledger, blocking.Limits(), beam={"options": {"temp_location": str(shared)}}, shards=3)
    assert np.array_equal(found, blocking.found(ledger, blocking.Limits()))
    assert shared.is_dir(), "they were there"
    assert list(shared.iterdir()) == [], "and nothing stays"


def test_workers_elsewhere_without_a_folder_in_common_are_refused(code: Code, ledger: Any) -> None:
    with pytest.raises(ConfigError, match=r"source\.options\.beam\.options\.temp_location: the workers of 'flink' are elsewhere"):
        code("beam_blocking").found(ledger, code("blocking").Limits(), beam={"runner": "flink"})


def test_a_key_that_many_invoices_share_says_nothing(code: Code, ledger: Any) -> None:
    blocking = code("blocking")
    keys = blocking.keys_of_invoices(ledger.invoices, 0)
    asked = blocking.keys_of_transfers(ledger.transfers, 0)
    few = blocking.joined(np.concatenate([keys, asked]), blocking.Limits(block=3))
    assert 0 < len(few) < len(blocking.joined(np.concatenate([keys, asked]), blocking.Limits()))


@pytest.mark.parametrize("wrong", ["INV 2024 001317", "inv-2024-01317", "2024/0013117", "order INV-2024-001371"])
def test_a_number_with_one_mistake_is_still_found(code: Code, wrong: str) -> None:
    blocking = code("blocking")
    day = pa.array([1_710_000_000], pa.int64()).cast(pa.timestamp("s", tz="UTC"))
    money = {"amount": [812.5], "currency": ["GBP"], "home_amount": [812.5]}
    invoices = pa.table(
        {"number": ["INV-2024-001317"], "customer": ["Delmont Ltd"], "issued_at": day, "closed_at": pa.nulls(1, day.type), **money}
    )
    money |= {"amount": [800.0], "home_amount": [800.0]}
    transfers = pa.table({"booked_at": day, "payer": ["SOMEBODY ELSE"], "reference": [wrong], **money})
    keys = np.concatenate([blocking.keys_of_transfers(transfers, 0), blocking.keys_of_invoices(invoices, 0)])
    assert len(blocking.joined(keys, blocking.Limits())) == 1


def test_what_was_paid_in_earlier_months_is_not_open_any_more(ledger: Any, rows: list[dict[str, Any]]) -> None:
    booked = dict(zip(ledger.transfers["transfer_id"].to_pylist(), ledger.transfers["booked_at"].to_pylist(), strict=True))
    total = dict(zip(ledger.invoices["invoice_id"].to_pylist(), ledger.invoices["amount"].to_pylist(), strict=True))
    seen = 0
    for row in rows:
        month = booked[row["transfer_id"]].replace(day=1, hour=0, minute=0, second=0)
        paid = [
            match["amount"]
            for match in ledger.matches.to_pylist()
            if match["invoice_id"] == row["invoice_id"] and booked[match["transfer_id"]] < month
        ]
        if paid:
            assert row["open"] == pytest.approx(total[row["invoice_id"]] - sum(paid), abs=0.01)
            seen += 1
        if seen == 40:
            return
    assert seen > 5


def test_a_window_gives_the_rows_that_the_whole_ledger_gives_for_its_months(code: Code, rows: list[dict[str, Any]]) -> None:
    later = code("pairs").rows(since=SETTLED, until=datetime(2024, 7, 1, tzinfo=UTC), generated={"invoices": 700, "days": 240, "seed": 3})
    mine = [row for row in rows if SETTLED <= row["booked_at"] < datetime(2024, 7, 1, tzinfo=UTC)]
    assert pa.Table.from_batches(later).to_pylist() == mine


def test_your_own_tables_take_the_same_way_and_nobody_is_labelled_who_was_not_looked_at(code: Code, ledger: Any, tmp_path: Path) -> None:
    files = {name: str(tmp_path / f"{name}.parquet") for name in ("invoices", "transfers", "matches")}
    looked_at = ledger.matches.slice(0, 300)
    for name, table in (("invoices", ledger.invoices), ("transfers", ledger.transfers), ("matches", looked_at)):
        pq.write_table(table, files[name])
    known = set(looked_at["transfer_id"].to_pylist())
    for row in pa.Table.from_batches(code("pairs").rows(files=files)).to_pylist():
        assert (row["matched"] is not None) == (row["transfer_id"] in known)
    pq.write_table(ledger.transfers.drop_columns(["payer"]), files["transfers"])
    with pytest.raises(ValueError, match="no column 'payer'"):
        list(code("pairs").rows(files=files))
    with pytest.raises(ValueError, match="takes invoices, transfers"):
        list(code("pairs").rows(files={"invoices": files["invoices"]}))


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(1, 90))
@settings(max_examples=80, deadline=None)
def test_the_nearest_sum_is_that_of_trying_all(code: Code, amounts: list[int], target: int) -> None:
    from itertools import combinations

    found = code("sums").gaps(np.array([[*map(float, amounts), np.nan]]), np.array([float(target)]), most=3)[0]
    for at in range(len(amounts)):
        sets = [some for size in (2, 3) for some in combinations(range(len(amounts)), size) if at in some]
        assert found[at] == pytest.approx(min(abs(sum(amounts[i] for i in some) - target) / target for some in sets))
    assert np.isnan(found[-1])


def test_the_same_seed_gives_the_same_ledger_and_money_is_neither_made_nor_lost(code: Code, ledger: Any) -> None:
    again = code("generator").ledger(invoices=700, days=240, seed=3)
    assert (again.transfers, again.matches) == (ledger.transfers, ledger.matches)
    assert code("generator").ledger(invoices=700, days=240, seed=4).transfers != ledger.transfers
    owed = dict(zip(ledger.invoices["invoice_id"].to_pylist(), ledger.invoices["amount"].to_pylist(), strict=True))
    paid = dict.fromkeys(owed, 0.0)
    for match in ledger.matches.to_pylist():
        if match["invoice_id"] is not None:
            paid[match["invoice_id"]] += match["amount"]
    assert all(paid[name] == pytest.approx(owed[name], abs=0.02) or paid[name] == 0.0 for name in owed)
    with pytest.raises(ValueError, match="at least 1"):
        code("generator").ledger(invoices=0)
