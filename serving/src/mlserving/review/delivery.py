"""Where parcels of the outbox go: the labels of the prediction log.

A label that is told twice, with the same `labelled_at`, counts once there (`predictions.reading.last_labels`), so a parcel may be sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from mlserving.errors import Unavailable
from mlserving.predictions.labels import LabelStore, collect
from mlserving.predictions.records import BY_REVIEW
from mlserving.review.outbox import Parcel

_log = structlog.get_logger("review")


def send_to(predictions: Path) -> Callable[[Parcel], None]:
    """What brings a parcel to the labels below `predictions`, and makes Parquet of it there.

    What it gives back raises Unavailable where the disk does not take the labels: they wait, and nothing is lost.
    """

    def send(parcel: Parcel) -> None:
        try:
            with LabelStore(predictions, source=BY_REVIEW, now=lambda: parcel.sent) as store:
                stored = store.store(_document(parcel))
            collect(predictions)
        except OSError as error:
            raise Unavailable(f"The labels could not be written to {predictions}: {error}. They wait, and nothing is lost.") from error
        for index, reason in stored.refused:  # sending it again would change nothing; the review itself stays
            _log.error("label refused", model=parcel.model, prediction_id=parcel.labels[index].prediction_id, reason=reason)

    return send


def _document(parcel: Parcel) -> dict[str, object]:
    return {
        "model": parcel.model,
        "labels": [
            {
                "prediction_id": label.prediction_id,
                "row": label.row,
                "label": label.label,
                "labelled_at": label.labelled_at.isoformat(),
                "reviewer": label.reviewer,
            }
            for label in parcel.labels
        ],
    }
