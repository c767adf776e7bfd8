"""Splits are disjoint, complete, stable and of the share that was asked for, whatever the rows."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpipelines.errors import ConfigError
from mlpipelines.ingestion.spans import span_codes, span_name
from mlpipelines.ingestion.splits import SplitRows, codes, midnight, select_test, select_validation, unit_hashes
from mlpipelines.project import Split

DAY = 86_400


def rows_of(count: int, *, groups: list[str | None] | None = None, start: int = 0, **columns: npt.NDArray[np.int64]) -> SplitRows:
    keys = pa.array([f"row {start + i}" for i in range(count)])
    seconds = columns.get("seconds")
    return SplitRows(
        hashes=unit_hashes(keys, None if groups is None else pa.array(groups, pa.string()), 17),
        spans=span_codes(seconds, "month", count),
        **columns,
    )


def share_within(mask: npt.NDArray[np.bool_], wanted: float, tolerance: float) -> bool:
    return bool(abs(mask.mean() - wanted) <= tolerance)


@given(st.integers(200, 3000), st.floats(0.1, 0.5))
@settings(max_examples=40, deadline=None)
def test_a_random_split_has_about_the_share_and_never_less_than_a_tenth_of_training(count: int, share: float) -> None:
    rows = rows_of(count)
    test = select_test(rows, Split(test=share))
    validation = select_validation(rows, Split(validation=share))
    tolerance = 5 * (share * (1 - share) / count) ** 0.5
    assert share_within(test, share, tolerance)
    assert share_within(validation, share, tolerance)
    assert validation.sum() >= 0.1 * (~validation).sum()


@given(st.integers(300, 1500), st.integers(1, 1500))
@settings(max_examples=30, deadline=None)
def test_rows_keep_their_split_when_others_come(count: int, more: int) -> None:
    before = select_validation(rows_of(count), Split(validation=0.3))
    after = select_validation(rows_of(count + more), Split(validation=0.3))
    assert np.array_equal(before, after[:count])


@given(st.lists(st.integers(0, 60), min_size=100, max_size=600), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_group_is_never_on_both_sides_and_keeps_its_side_when_rows_come(members: list[int], more: int) -> None:
    groups: list[str | None] = [f"group {g}" for g in members]
    rows = rows_of(len(groups), groups=groups)
    split = Split(by="group", group="g", validation=0.3, test=0.3)
    for mask in (select_test(rows, split), select_validation(rows, split)):
        assert not {g for g, chosen in zip(groups, mask, strict=True) if chosen} & {
            g for g, chosen in zip(groups, mask, strict=True) if not chosen
        }
    grown = groups + [f"new {i}" for i in range(more)]
    before, after = select_validation(rows, split), select_validation(rows_of(len(grown), groups=grown), split)
    below = before.sum() >= 0.1 * (~before).sum() * 1.5  # else groups were added to reach the minimum
    assert not below or np.array_equal(before, after[: len(groups)])


def test_rows_without_a_group_stand_by_themselves() -> None:
    mask = select_validation(rows_of(2000, groups=[None] * 2000), Split(by="group", group="g"))
    assert share_within(mask, 0.12, 0.04)


def test_the_test_share_of_a_split_by_group_is_one_of_rows() -> None:
    sizes = np.random.default_rng(3).zipf(1.6, 400).clip(max=150)
    groups: list[str | None] = [f"g{g}" for g, size in enumerate(sizes) for _ in range(size)]
    mask = select_test(rows_of(len(groups), groups=groups), Split(by="group", group="g", test=0.2))
    assert share_within(mask, 0.2, 0.05)


@given(st.lists(st.integers(0, 9), min_size=200, max_size=2000))
@settings(max_examples=30, deadline=None)
def test_every_stratum_has_its_exact_share(strata: list[int]) -> None:
    stratum = np.array(strata)
    mask = select_test(rows_of(len(strata), strata=stratum), Split(stratify="s", test=0.25))
    for value in set(strata):
        of_value = mask[stratum == value]
        assert abs(of_value.sum() - 0.25 * len(of_value)) <= 0.5 + 1e-6


def test_a_stratum_thinner_than_one_row_a_month_still_gets_its_share_over_the_years() -> None:
    seconds = np.arange(60) * 30 * DAY
    mask = select_validation(rows_of(60, seconds=seconds, strata=np.zeros(60, np.int64)), Split(stratify="s", validation=0.2))
    assert mask.sum() == 12


def test_a_closed_month_never_changes_when_later_months_come() -> None:
    rng = np.random.default_rng(5)
    seconds = np.sort(rng.integers(0, 400 * DAY, 6000))
    strata, balance = rng.integers(0, 12, 6000), rng.choice(4, 6000, p=[0.7, 0.2, 0.07, 0.03])
    split = Split(stratify="s", balance="b")
    cut = int(np.searchsorted(seconds, midnight(date(1970, 10, 1))))
    before = select_validation(rows_of(cut, seconds=seconds[:cut], strata=strata[:cut], balance=balance[:cut]), split)
    after = select_validation(rows_of(6000, seconds=seconds, strata=strata, balance=balance), split)
    assert np.array_equal(before, after[:cut])


def test_balancing_gives_every_value_the_same_weight() -> None:
    balance = np.repeat([0, 1, 2], [6000, 3000, 1500])
    mask = select_validation(rows_of(len(balance), balance=balance), Split(balance="b", validation=0.12))
    assert np.bincount(balance[mask]).tolist() == [420, 420, 420]


def test_balancing_leaves_a_small_team_at_least_half_of_its_rows_to_train_on() -> None:
    balance = np.repeat([0, 1], [9900, 100])
    mask = select_validation(rows_of(len(balance), balance=balance), Split(balance="b", validation=0.12))
    assert np.bincount(balance[mask]).tolist() == [1150, 50]


def test_by_time_the_newest_rows_are_the_test_set() -> None:
    seconds = np.random.default_rng(1).permutation(1000) * DAY
    mask = select_test(rows_of(1000, seconds=seconds), Split(by="time", test=0.2))
    assert mask.sum() == 200
    assert seconds[mask].min() > seconds[~mask].max()


def test_by_time_equal_times_stay_together() -> None:
    seconds = np.repeat([1, 2, 3], [700, 200, 100]) * DAY
    assert select_test(rows_of(1000, seconds=seconds), Split(by="time", test=0.15)).sum() in (100, 300)
    assert select_test(rows_of(1000, seconds=seconds), Split(by="time", test=0.28)).sum() == 300


def test_by_time_a_day_can_be_named() -> None:
    seconds = np.arange(100) * DAY
    mask = select_test(rows_of(100, seconds=seconds), Split(by="time", test_from=date(1970, 3, 1)))
    assert seconds[mask].min() == datetime(1970, 3, 1, tzinfo=UTC).timestamp()


def test_a_validation_share_below_a_tenth_of_training_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"split\.validation is 0\.05.*Set split\.validation to 0\.091"):
        select_validation(rows_of(1000), Split(validation=0.05))


def test_chance_in_a_small_data_set_does_not_refuse_a_run() -> None:
    for count in range(2, 60):
        mask = select_validation(rows_of(count), Split(validation=0.12))
        assert 0 < mask.sum() < count


def test_values_of_any_type_have_codes() -> None:
    for values in (pa.array(["a", None, "a"]), pa.array([1.5, None, 1.5]), pa.array([["a"], None, ["a"]])):
        found = codes(values)
        assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(("kind", "name"), [("day", "2016-04-03"), ("week", "2016-W13"), ("month", "2016-04"), ("none", "all")])
def test_spans_are_named_by_their_calendar(kind: str, name: str) -> None:
    second = np.array([int(datetime(2016, 4, 3, 23, 59, 59, tzinfo=UTC).timestamp())])
    assert span_name(int(span_codes(second, kind, 1)[0]), kind) == name  # type: ignore[arg-type] # parametrised


@given(st.lists(st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)), min_size=2, max_size=2))  # noqa: DTZ001 - hypothesis wants naive bounds
def test_span_names_sort_as_time_does(moments: list[datetime]) -> None:
    seconds = np.array(sorted(int(m.replace(tzinfo=UTC).timestamp()) for m in moments))
    for kind in ("day", "week", "month"):
        names = [span_name(int(code), kind) for code in span_codes(seconds, kind, 2)]
        assert names == sorted(names)
