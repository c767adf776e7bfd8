"""What may happen to the label between two accepted data sets.

Only for labels that are classes (`class`, `classes`, `flag`). That a value is not a class of the schema is the schema's own
rule (`schema_rules`); a label that is a number is held against the last data set by `drift`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlpipelines.project import LabelRules
from mlpipelines.validation.anomalies import Anomaly, Pick, shortened, told_only
from mlserving.statistics.distances import pooled_share, share_noise


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCounts:
    """Rows of each class in one data set. With a list of classes in each row, the counts may add up to more than `rows`."""

    rows: int
    counts: Mapping[str, float]

    def share(self, name: str) -> float:
        """The share of rows that have this class."""
        return self.counts.get(name, 0.0) / self.rows if self.rows else 0.0


def label_anomalies(
    column: str, current: ClassCounts, *, last: ClassCounts | None, classes: Sequence[str], rules: LabelRules
) -> list[Anomaly]:
    """Everything that the label's classes may not do.

    Args:
        column: the label.
        current: the data set in question, training and validation rows together.
        last: the last accepted data set, if there is one.
        classes: of the reviewed schema.
        rules: of `project.yaml`.
    """
    return [*_one_class(column, current), *_vanished(column, current, last, classes, rules), *_moved(column, current, last, rules)]


def _one_class(column: str, current: ClassCounts) -> Iterator[Anomaly]:
    present = [name for name, count in current.counts.items() if count > 0]
    if len(present) == 1:
        what = f"every row is {shortened(present[0])!r}: there is nothing to learn from one class"
        yield Anomaly(column=column, rule="one class only", what=what, share=1.0, pick=Pick(kind="among", values=(present[0],)))


def _vanished(column: str, current: ClassCounts, last: ClassCounts | None, classes: Sequence[str], rules: LabelRules) -> Iterator[Anomaly]:
    expected = dict.fromkeys([*classes, *(last.counts if last else ())])
    for name in expected:
        if current.counts.get(name, 0) > 0:
            continue
        before = last.share(name) if last else None
        known = f"had {before:.2%} of the last accepted rows" if before is not None else "is a class of the reviewed schema"
        what = f"{shortened(name)!r} {known} and has no row now"
        found = Anomaly(column=column, rule="class vanished", what=what, share=before, examples=(shortened(name),))
        rare = before is not None and before < rules.vanished_min_share
        yield told_only(found) if rare or rules.vanished == "warn" else found


def _moved(column: str, current: ClassCounts, last: ClassCounts | None, rules: LabelRules) -> Iterator[Anomaly]:
    if last is None:
        return
    rows = (last.rows, current.rows)
    for name in dict.fromkeys([*last.counts, *current.counts]):
        before, after = last.share(name), current.share(name)
        allowed = rules.max_share_change + share_noise(pooled_share((before, after), rows), rows)
        if abs(after - before) > allowed:
            what = f"{shortened(name)!r} went from {before:.1%} to {after:.1%} of rows; {allowed:.1%} is allowed"
            yield Anomaly(column=column, rule="class share", what=what, share=after, pick=Pick(kind="among", values=(name,)))
