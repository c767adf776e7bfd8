"""Who told us what was right, of how many answers, and how late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

REVIEW = "review"
"""The source of labels from the review queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """Of one group's rows."""

    rows: int
    labelled: int = 0
    sources: Mapping[str, int] = field(default_factory=dict)
    """Labelled rows by where the label came from."""
    delay_median: float | None = None
    """Seconds from a prediction to our being told; None without labels."""
    delay_p90: float | None = None
    newest_label_age: float | None = None
    """Seconds since the last label arrived; None without labels."""
    oldest_unlabelled_age: float | None = None
    """Seconds since the oldest prediction of the window that has no label; None where all have one."""

    @property
    def labelled_share(self) -> float:
        """Of all rows."""
        return self.labelled / self.rows if self.rows else 0.0

    @property
    def reviewed_share(self) -> float:
        """Of all rows, those that a reviewer labelled."""
        return self.sources.get(REVIEW, 0) / self.rows if self.rows else 0.0

    @property
    def only_reviewed(self) -> bool:
        """Whether every label is a reviewer's: then the labelled rows are those that the queue picked, and no fair sample."""
        return bool(self.labelled) and set(self.sources) == {REVIEW}


class LabellingCounter:
    """Counts batch by batch. Four bytes a label are kept, for the quantiles of the delay."""

    def __init__(self) -> None:
        self._rows = 0
        self._sources: Counter[str] = Counter()
        self._delays: list[npt.NDArray[np.float32]] = []
        self._newest: datetime | None = None
        self._oldest: datetime | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch of predictions with their labels beside them."""
        self._rows += batch.num_rows
        for entry in pc.value_counts(batch["label_source"].drop_null()):
            self._sources[entry["values"].as_py()] += entry["counts"].as_py()
        self._delays.append(np.asarray(batch["label_delay_s"].drop_null().to_numpy(zero_copy_only=False), np.float32))
        newest = pc.max(batch["received_at"]).as_py()
        if newest is not None:
            self._newest = newest if self._newest is None else max(self._newest, newest)
        oldest = pc.min(batch["time"].filter(pc.is_null(batch["truth"]))).as_py()
        if oldest is not None:
            self._oldest = oldest if self._oldest is None else min(self._oldest, oldest)

    def labelling(self, now: datetime) -> Labelling:
        """What was counted, as of `now`."""
        delays = np.concatenate(self._delays) if self._delays else np.empty(0, np.float32)
        median, p90 = (float(value) for value in np.quantile(delays, (0.5, 0.9))) if len(delays) else (None, None)
        return Labelling(
            rows=self._rows,
            labelled=len(delays),
            sources=dict(sorted(self._sources.items())),
            delay_median=median,
            delay_p90=p90,
            newest_label_age=(now - self._newest).total_seconds() if self._newest else None,
            oldest_unlabelled_age=(now - self._oldest).total_seconds() if self._oldest else None,
        )
