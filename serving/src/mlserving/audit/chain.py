"""The chain: each entry carries the hash of the one before it, so none can be changed, moved or taken out unseen. Pure.

What a chain cannot show by itself is that its end was cut off: a shorter chain is a whole chain. So the hash of the last entry, the anchor, is
kept elsewhere too (beside the database, in a rollout's state, on the version in the registry), and a check is given what anchors there are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlserving.errors import ConfigError

GENESIS = "0" * 64
"""What the first entry follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What is told: who did what to what, when and why."""

    time: str
    """UTC, ISO 8601, microseconds."""
    who: str
    action: str
    subject: str
    why: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A fact at its place in the chain."""

    sequence: int
    fact: Fact
    previous: str
    hash: str

    @property
    def anchor(self) -> Anchor:
        """What must be kept elsewhere."""
        return Anchor(sequence=self.sequence, hash=self.hash)


@dataclass(frozen=True, slots=True)
class Anchor:
    """The place and hash of an entry, as somebody else remembers it."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        """As people pass it on: `17:3fa9…`."""
        return f"{self.sequence}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """The inverse of str. Raises ConfigError."""
        sequence, _, digest = text.strip().partition(":")
        if not sequence.isdecimal() or not digest:
            raise ConfigError(f"{text!r} is no anchor. Write SEQUENCE:HASH, as `millrace audit verify` prints it.")
        return cls(int(sequence), digest)


def follow(last: Entry | None, fact: Fact) -> Entry:
    """The entry for `fact` after `last`."""
    sequence, previous = (last.sequence + 1, last.hash) if last else (1, GENESIS)
    return Entry(sequence=sequence, fact=fact, previous=previous, hash=digest(sequence, previous, fact))


def digest(sequence: int, previous: str, fact: Fact) -> str:
    """SHA-256 over the previous hash and the entry's canonical JSON: sorted keys, no spaces, UTF-8."""
    body = {
        "sequence": sequence,
        "time": fact.time,
        "who": fact.who,
        "action": fact.action,
        "subject": fact.subject,
        "why": fact.why,
        "details": fact.details,
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check found."""

    entries: int
    head: Anchor | None
    broken: str = ""
    """What is wrong with the first entry that is wrong; empty where the log is whole."""


def verify(entries: Iterable[Entry], anchors: Iterable[Anchor] = ()) -> Verdict:
    """Follow the chain from its beginning, and hold it against `anchors`."""
    last: Entry | None = None
    remembered: dict[int, set[str]] = {}
    for anchor in anchors:
        remembered.setdefault(anchor.sequence, set()).add(anchor.hash)
    count = 0
    for entry in entries:
        broken = _fault(last, entry) or _forgotten(entry, remembered)
        if broken:
            return Verdict(entries=count, head=last.anchor if last else None, broken=broken)
        last, count = entry, count + 1
    return Verdict(entries=count, head=last.anchor if last else None, broken=_cut(last, remembered))


def _fault(last: Entry | None, entry: Entry) -> str:
    expected = last.sequence + 1 if last else 1
    if entry.sequence != expected:
        return f"entry {expected} is missing: {entry.sequence} follows {expected - 1}"
    if entry.previous != (last.hash if last else GENESIS):
        return f"entry {entry.sequence} does not follow entry {expected - 1}: it was put in or moved, or the one before it was changed"
    if entry.hash != digest(entry.sequence, entry.previous, entry.fact):
        return f"entry {entry.sequence} was changed after it was written"
    return ""


def _forgotten(entry: Entry, remembered: Mapping[int, set[str]]) -> str:
    known = remembered.get(entry.sequence, {entry.hash})
    return (
        ""
        if known == {entry.hash}
        else f"entry {entry.sequence} is another one than its anchor remembers: the log was written anew from there or before"
    )


def _cut(last: Entry | None, remembered: Mapping[int, set[str]]) -> str:
    end = last.sequence if last else 0
    beyond = max(remembered, default=0)
    return f"the log ends with entry {end}, and an anchor remembers entry {beyond}: its end was cut off" if beyond > end else ""
