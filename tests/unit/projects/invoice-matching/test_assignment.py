"""Whatever the scores say: nothing is overpaid, nothing is used twice, and the order of rows does not matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

OPEN = st.sampled_from([10.0, 20.0, 30.0, 50.0, 99.99, 100.0, 250.0])


@st.composite
def worlds(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few transfers and invoices with candidates between them; amounts often add up by chance."""
    invoices = draw(st.lists(OPEN, min_size=1, max_size=6))
    transfers = draw(st.lists(st.one_of(OPEN, st.sampled_from([30.0, 60.0, 120.0, 149.99])), min_size=1, max_size=6))
    chosen = draw(st.lists(st.tuples(st.integers(0, len(transfers) - 1), st.integers(0, len(invoices) - 1)), unique=True, max_size=18))
    scores = draw(st.lists(st.floats(0, 1), min_size=len(chosen), max_size=len(chosen)))
    return [
        {"transfer": f"t{t}", "invoice": f"i{i}", "score": score, "paid": transfers[t], "open": invoices[i]}
        for (t, i), score in zip(chosen, scores, strict=True)
    ]


@pytest.fixture(scope="module")
def assignment(code: Callable[[str], ModuleType]) -> ModuleType:
    return code("assignment")


def matched(assignment: ModuleType, world: list[dict[str, Any]]) -> list[Any]:
    found: list[Any] = assignment.assign([assignment.Pair(**pair) for pair in world])
    return found


anything = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(worlds())
@anything
def test_no_invoice_is_overpaid_and_no_transfer_pays_more_than_it_brings(assignment: ModuleType, world: list[dict[str, Any]]) -> None:
    to_invoice, from_transfer = Counter[str](), Counter[str]()
    for match in matched(assignment, world):
        assert match.amount >= 0
        to_invoice[match.invoice] += match.amount
        from_transfer[match.transfer] += match.amount
    for pair in world:
        assert to_invoice[pair["invoice"]] <= pair["open"] + 1e-6
        assert from_transfer[pair["transfer"]] <= pair["paid"] + 1e-6


@given(worlds())
@anything
def test_nobody_is_assigned_twice(assignment: ModuleType, world: list[dict[str, Any]]) -> None:
    found = matched(assignment, world)
    transfers, invoices = Counter(m.transfer for m in found), Counter(m.invoice for m in found)
    for match in found:
        assert transfers[match.transfer] == 1 or (match.kind == "combined" and invoices[match.invoice] == 1)
        assert invoices[match.invoice] == 1 or (match.kind == "instalments" and transfers[match.transfer] == 1)
    assert len({(m.transfer, m.invoice) for m in found}) == len(found)


@given(worlds(), st.randoms(use_true_random=False))
@anything
def test_the_answer_does_not_depend_on_the_order_of_rows(assignment: ModuleType, world: list[dict[str, Any]], chance: Any) -> None:
    shuffled = [*world, *world[:2]]  # and a row that comes twice is one row
    chance.shuffle(shuffled)
    assert matched(assignment, shuffled) == matched(assignment, world)


@given(worlds())
@settings(max_examples=40, deadline=None)
def test_no_other_choice_of_explanations_is_likelier(assignment: ModuleType, world: list[dict[str, Any]]) -> None:
    pairs = [assignment.Pair(**pair) for pair in world]
    every = assignment._explanations([p for p in assignment._once(pairs) if p.score >= 0.05], assignment.Rules())[:9]
    chosen = assignment._packed(every)

    def apart(some: tuple[Any, ...]) -> bool:
        names = [name for each in some for name in {("t", p.transfer) for p in each.pairs} | {("i", p.invoice) for p in each.pairs}]
        return len(names) == len(set(names))

    best = max(
        (sum(e.worth for e in some) for size in range(len(every) + 1) for some in combinations(every, size) if apart(some)), default=0.0
    )
    assert sum(each.worth for each in chosen) == pytest.approx(best)


def test_where_all_amounts_are_alike_it_is_the_classical_assignment(assignment: ModuleType) -> None:
    scores = np.random.default_rng(5).uniform(0.5, 0.999, (12, 12))
    world = [
        {"transfer": f"t{t:02}", "invoice": f"i{i:02}", "score": scores[t, i], "paid": 100.0, "open": 100.0}
        for t in range(12)
        for i in range(12)
    ]
    rows, columns = linear_sum_assignment(-np.log(scores / (1 - scores)))
    assert [(m.transfer, m.invoice) for m in matched(assignment, world)] == [
        (f"t{t:02}", f"i{i:02}") for t, i in zip(rows, columns, strict=True)
    ]


def pair(transfer: str, invoice: str, score: float, paid: float, owed: float) -> dict[str, Any]:
    return {"transfer": transfer, "invoice": invoice, "score": score, "paid": paid, "open": owed}


def told(assignment: ModuleType, *world: dict[str, Any]) -> list[tuple[str, str, float, str]]:
    return [(m.transfer, m.invoice, m.amount, m.kind) for m in matched(assignment, list(world))]


def test_a_transfer_that_is_the_sum_of_three_invoices_pays_all_three(assignment: ModuleType) -> None:
    world = [pair("t", name, 0.8, 60.0, owed) for name, owed in (("a", 10.0), ("b", 20.0), ("c", 30.0), ("d", 45.0))]
    assert told(assignment, *world) == [("t", "a", 10.0, "combined"), ("t", "b", 20.0, "combined"), ("t", "c", 30.0, "combined")]


def test_two_transfers_pay_one_invoice_in_instalments_and_a_third_does_not_overpay_it(assignment: ModuleType) -> None:
    world = [pair("x", "i", 0.9, 40.0, 100.0), pair("y", "i", 0.9, 60.0, 100.0), pair("z", "i", 0.6, 60.0, 100.0)]
    assert told(assignment, *world) == [("x", "i", 40.0, "instalments"), ("y", "i", 60.0, "instalments")]


def test_a_first_instalment_is_a_part_and_a_fee_that_a_bank_kept_is_none(assignment: ModuleType) -> None:
    assert told(assignment, pair("t", "i", 0.9, 50.0, 500.0)) == [("t", "i", 50.0, "part")]
    assert told(assignment, pair("t", "i", 0.9, 480.0, 500.0)) == [("t", "i", 480.0, "whole")]


def test_what_is_unlikely_or_too_much_is_no_match(assignment: ModuleType) -> None:
    assert told(assignment, pair("t", "i", 0.4, 100.0, 100.0)) == []
    assert told(assignment, pair("t", "i", 0.99, 150.0, 100.0)) == []
    assert told(assignment, pair("t", "i", 0.99, float("nan"), 100.0)) == []


def test_every_transfer_is_decided_on_once_and_what_is_left_has_a_suggestion(code: Callable[[str], ModuleType]) -> None:
    decisions = code("decisions")
    scored = {
        "transfer_id": ["t1", "t1", "t2", "t3"],
        "invoice_id": ["i1", "i2", "i2", "i9"],
        "paid": [10.0, 10.0, 20.0, 7.0],
        "open": [10.0, 20.0, 20.0, 70.0],
        "output/score": [0.97, 0.1, 0.7, 0.2],
    }
    rows = decisions.decide(pa.table(scored)).to_pylist()
    assert [(row["transfer_id"], row["invoice_id"], row["kind"], row["automatic"]) for row in rows] == [
        ("t1", "i1", "whole", True),
        ("t2", "i2", "whole", False),
        ("t3", None, "none", False),
    ]
    assert rows[2]["suggestion"] == "i9"
    assert rows[2]["certainty"] == pytest.approx(0.8)
