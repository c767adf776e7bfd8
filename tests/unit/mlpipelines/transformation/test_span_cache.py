"""Which spans are analysed again, and the folder that remembers the others."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mlpipelines.transformation.span_cache import Plan, Span, SpanCache, Unit, plan, prune

ENTRIES = {b"mean": [b"\x00\xff"], b"vocabulary": [b"a", b"b"], b"found nothing": []}


def span(name: str, content: str = "1", rows: int = 10) -> Span:
    return Span(name=name, sha256=content, rows=rows)


def names(units: tuple[Unit, ...]) -> list[list[str]]:
    return [[span.name for span in unit.spans] for unit in units]


def test_small_spans_share_a_unit_and_the_newest_is_alone() -> None:
    assert names(plan([span("1"), span("2"), span("3"), span("4")], [], rows_in_a_unit=20).fresh) == [["1", "2"], ["3"], ["4"]]


def test_large_spans_are_units_of_their_own() -> None:
    assert names(plan([span("1", rows=50), span("2", rows=50), span("3")], [], rows_in_a_unit=20).fresh) == [["1"], ["2"], ["3"]]


def test_a_new_span_is_the_only_one_analysed() -> None:
    before = plan([span("1"), span("2")], [])
    after = plan([span("1"), span("2"), span("3")], before.fresh)
    assert (names(after.fresh), sorted(names(after.kept))) == ([["3"]], [["1"], ["2"]])


def test_a_changed_span_takes_the_small_ones_of_its_unit_along_and_no_other() -> None:
    before = plan([span("1"), span("2"), span("3"), span("4")], [], rows_in_a_unit=20)
    after = plan([span("1", "changed"), span("2"), span("3"), span("4")], before.fresh, rows_in_a_unit=20)
    assert sorted(names(after.kept)) == [["3"], ["4"]]
    assert names(after.fresh) == [["1"], ["2"]]


def test_a_span_that_is_gone_is_not_in_what_is_kept() -> None:
    before = plan([span("1"), span("2"), span("3")], [])
    assert names(plan([span("2"), span("3")], before.fresh).kept) == [["3"]]


SPANS = st.lists(st.tuples(st.integers(1, 8), st.sampled_from("ab"), st.integers(0, 30)), max_size=8, unique_by=lambda one: one[0])


@given(st.lists(SPANS, min_size=1, max_size=4))
def test_whatever_was_cached_every_span_is_covered_exactly_once(runs: list[list[tuple[int, str, int]]]) -> None:
    cached: list[Unit] = []
    for run in runs:
        spans = [span(str(name), content, rows) for name, content, rows in sorted(run)]
        chosen: Plan = plan(spans, cached, rows_in_a_unit=25)
        assert sorted(one for unit in (*chosen.kept, *chosen.fresh) for one in unit.spans) == spans
        cached += chosen.fresh


def test_what_was_written_is_read_even_where_an_analyser_found_nothing(tmp_path: Path) -> None:
    cache, unit = SpanCache(tmp_path / "code"), Unit(spans=(span("1"),))
    assert cache.read(unit) is None
    cache.write(unit, ENTRIES)
    assert cache.units() == [unit]
    assert cache.read(unit) == ENTRIES


def test_a_damaged_file_is_as_good_as_absent_and_removed(tmp_path: Path) -> None:
    cache, unit = SpanCache(tmp_path), Unit(spans=(span("1"),))
    cache.write(unit, ENTRIES)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1]), b"", b"\xff\xfe", whole[:20]):
        file.write_bytes(damaged)
        assert cache.read(unit) is None
        assert not file.exists()


def test_what_a_killed_run_left_is_never_read_and_pruned_after_a_day(tmp_path: Path) -> None:
    cache = SpanCache(tmp_path / "code")
    cache.write(Unit(spans=(span("1"),)), ENTRIES)
    half = cache.folder / ".half.unit.3f2"
    half.write_bytes(b"half")
    os.utime(half, (1, 1))
    assert len(cache.units()) == 1
    assert prune(tmp_path, now=half.parent.stat().st_mtime) == 1
    assert len(cache.units()) == 1


def test_units_that_no_run_used_for_a_month_are_pruned_with_their_code(tmp_path: Path) -> None:
    old, used = SpanCache(tmp_path / "old"), SpanCache(tmp_path / "used")
    unit = Unit(spans=(span("1"),))
    for cache in (old, used):
        cache.write(unit, ENTRIES)
        os.utime(next(cache.folder.iterdir()), (0, 0))
    used.read(unit)  # reading is using
    prune(tmp_path, now=used.folder.stat().st_mtime)
    assert not old.folder.exists()
    assert used.units() == [unit]


def test_without_a_cache_folder_there_is_nothing_to_prune(tmp_path: Path) -> None:
    assert prune(tmp_path / "none", now=0) == 0
