"""What the recorder tells Prometheus, by way of a file that the gateway shows on its own page.

The file is written whole by a rename, so a reader never sees half of it. The names are a contract: the monitor, alerts and rollouts read them.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from mlserving.predictions.decode import Decoded
from mlserving.predictions.exchange import Exchange
from mlserving.predictions.records import EXPLANATION

MOST_CLASSES = 100
"""A model's classes beyond these are counted as `other`: a label that is free text must not fill Prometheus."""
_LONGEST_CLASS = 100
_CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_TRACK = ("model", "track", "version")


class RecorderMetrics:
    """Counters since the recorder began. Prometheus knows that counters begin anew."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it untyped
        self._registry = CollectorRegistry()
        self.logged = Counter("millrace_predictions_logged", "Rows written to the log.", _TRACK, registry=self._registry)
        self.dropped = Counter(
            "millrace_predictions_dropped",
            "Exchanges that were spooled and are not in the log.",
            ("model", "reason"),
            registry=self._registry,
        )
        self.left_out = Counter(
            "millrace_predictions_values_left_out", "Values that were too large to be kept.", ("model",), registry=self._registry
        )
        self.labels = Counter("millrace_labels", "Labels that became Parquet.", ("model", "source"), registry=self._registry)
        self.write_errors = Counter(
            "millrace_predictions_write_errors",
            "Times that the log could not be written; the spool keeps what it holds.",
            registry=self._registry,
        )
        self.spool_bytes = Gauge("millrace_predictions_spool_bytes", "Bytes that wait in the spool.", registry=self._registry)
        self.last_write = Gauge(
            "millrace_predictions_last_write_timestamp_seconds", "When a file of the log was last written.", registry=self._registry
        )
        self._confidence = Histogram(
            "millrace_prediction_confidence", "How sure the model was.", _TRACK, buckets=_CONFIDENCE, registry=self._registry
        )
        self._classes = Counter("millrace_prediction_class", "Predicted classes.", (*_TRACK, "class"), registry=self._registry)
        self._known: defaultdict[str, set[str]] = defaultdict(set)

    def predicted(self, exchange: Exchange, decoded: Decoded) -> None:
        """Count an exchange's rows, classes and confidences; the classes of an explanation were counted when they were answered."""
        track = (exchange.model, exchange.track, str(exchange.version))
        self.logged.labels(*track).inc(decoded.rows)
        self.left_out.labels(exchange.model).inc(decoded.left_out)
        if decoded.signature == EXPLANATION:
            return
        for label in decoded.labels:
            if label is not None:
                self._classes.labels(*track, self._class(exchange.model, label)).inc()
        confidence = self._confidence.labels(*track)
        for each in decoded.confidences:
            if each is not None:
                confidence.observe(each)

    def write(self, path: Path) -> None:
        """Write the figures. A disk that does not take them now will later."""
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            fresh.write_bytes(generate_latest(self._registry))
            fresh.rename(path)

    def _class(self, model: str, label: str) -> str:
        known = self._known[model]
        if label not in known and (len(known) >= MOST_CLASSES or len(label) > _LONGEST_CLASS):
            return "other"
        known.add(label)
        return label
