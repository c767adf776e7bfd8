from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserving.audit.chain import GENESIS, Anchor, Entry, Fact, follow, verify
from mlserving.errors import ConfigError


def fact(why: str = "") -> Fact:
    return Fact(time="2026-01-01T00:00:00.000000+00:00", who="ann", action="rollout.start", subject="demo", why=why, details={"to": 2})


def chain(length: int) -> list[Entry]:
    entries: list[Entry] = []
    for number in range(length):
        entries.append(follow(entries[-1] if entries else None, fact(f"because {number}")))
    return entries


def test_a_chain_that_nobody_touched_is_whole() -> None:
    found = verify(chain(5))
    assert (found.entries, found.broken) == (5, "")
    assert found.head == chain(5)[-1].anchor
    assert chain(1)[0].previous == GENESIS


@given(st.integers(0, 7), st.sampled_from(["who", "action", "subject", "why", "time"]), st.text(min_size=1))
def test_the_first_changed_entry_is_named(at: int, field: str, value: str) -> None:
    entries = chain(8)
    changed = replace(entries[at].fact, **{field: value})
    if changed == entries[at].fact:
        return
    entries[at] = replace(entries[at], fact=changed)
    assert verify(entries).broken == f"entry {at + 1} was changed after it was written"
    assert verify(entries).entries == at


def test_an_entry_that_was_changed_together_with_its_hash_breaks_the_one_after_it() -> None:
    entries = chain(4)
    entries[1] = follow(entries[0], fact("another story"))
    assert "entry 3 does not follow entry 2" in verify(entries).broken


@given(st.integers(0, 6))
def test_an_entry_that_was_taken_out_is_missed(at: int) -> None:
    entries = chain(8)
    del entries[at]
    assert verify(entries).broken.startswith(f"entry {at + 1} is missing")


@given(st.integers(1, 8))
def test_a_tail_that_was_cut_off_shows_by_an_anchor_and_only_by_one(kept: int) -> None:
    entries = chain(8)
    assert verify(entries[:kept]).broken == ""
    found = verify(entries[:kept], [entries[-1].anchor]).broken
    assert found == ("" if kept == 8 else f"the log ends with entry {kept}, and an anchor remembers entry 8: its end was cut off")


def test_a_log_that_was_written_anew_shows_by_an_anchor() -> None:
    entries = chain(3)
    forged = [*entries[:1], follow(entries[0], fact("a kinder story"))]
    forged.append(follow(forged[-1], fact("and on")))
    assert verify(forged).broken == ""
    assert "entry 2 is another one than its anchor remembers" in verify(forged, [entry.anchor for entry in entries]).broken


def test_an_anchor_reads_as_it_is_printed() -> None:
    anchor = chain(2)[-1].anchor
    assert Anchor.parse(f"{anchor}\n") == anchor
    with pytest.raises(ConfigError, match="SEQUENCE:HASH"):
        Anchor.parse("seventeen")
