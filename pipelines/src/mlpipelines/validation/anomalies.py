"""What may be wrong with a data set, said so that a person can act on it.

Rules (`schema_rules`, `data_rules`, `label_rules`) return `Anomaly`s. They see statistics only, so an anomaly says by a `Pick`
which rows it is about, and `rows` reads them back. `steps.validate` makes the report, the page and the text of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mlpipelines.artifacts import SplitName

SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """The rows that an anomaly is about: those whose value is …"""

    kind: Literal["missing", "among", "outside", "between", "any"]
    values: tuple[str, ...] = ()
    """For `among` and `outside`."""
    low: float = -math.inf
    high: float = math.inf
    """For `between`: above `low` and not above `high`; equal to them where they are equal."""
    without_high: bool = False
    """For `between`: `high` itself is not meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """One thing that is wrong."""

    column: str
    rule: str
    """In a few words, the same for every column."""
    what: str
    """What was found and what was expected."""
    share: float | None = None
    """Share of the rows concerned, 0 to 1; None where no rows are (a class that vanished)."""
    examples: tuple[str, ...] = ()
    pick: Pick | None = None
    """Where examples are to be read from the rows."""
    split: SplitName | None = None
    """The split concerned; None: both."""
    rejects: bool = True
    """Otherwise it is only told."""

    def as_row(self) -> dict[str, object]:
        """For the report: JSON-able, the same keys for every anomaly."""
        return {
            "column": self.column,
            "rule": self.rule,
            "what": self.what,
            "rows": None if self.share is None else round(self.share, 6),
            "examples": list(self.examples),
        }


def told_only(anomaly: Anomaly) -> Anomaly:
    """The same, as a warning."""
    return replace(anomaly, rejects=False)


def shortened(value: str) -> str:
    """A value as it is shown to a person: one line, at most `SHOWN_CHARACTERS` long."""
    line = "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in value)
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"


def summary(anomalies: Sequence[Anomaly], *, most: int = 8) -> str:
    """A few lines for the text of an error: what rejects, worst first as given."""
    found = [anomaly for anomaly in anomalies if anomaly.rejects]
    lines = [f"  {anomaly.column}: {anomaly.rule}: {anomaly.what}" for anomaly in found[:most]]
    if len(found) > most:
        lines.append(f"  … and {len(found) - most} more")
    return "\n".join(lines)
