"""The columns of the prediction log and of the labels, and where their files lie.

```
<predictions>/log/model=<model>/day=YYYY-MM-DD/<writer>-<sequence>.parquet
<predictions>/labels/model=<model>/day=YYYY-MM-DD/<writer>-<sequence>.parquet
```

One row of the log is one instance: a request with three instances is three rows of one `prediction_id`, told apart by `row`. Inputs that the
gateway's settings name are columns `feature/<name>`, outputs are `output/<name>`, each as the model's signature types them: a scalar for an
instance of rank 0, a list (flattened) otherwise. Columns differ between models and may differ between versions, so
readers unify schemas. `day` is the UTC day of `time`. A file appears by one rename, whole; names that begin with a dot are being written.

A label names the prediction that it is about. Several labels of one row are all kept; `received_at` tells the last one.
"""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from mlserving.client.ask import EXPLAIN_SIGNATURE

EXPLANATION = EXPLAIN_SIGNATURE
"""The `signature` of rows that say why. They are kept as any, and are no predictions: an application asks what to do by another signature, and a
case counts once. `reading` and the recorder's figures hold to that."""
TIME = pa.timestamp("us", tz="UTC")
FEATURE, OUTPUT = "feature/", "output/"
BY_REVIEW = "review"
"""The `source` of labels that the review page told."""
MOST_VALUE_BYTES = 65_536
"""A larger value, such as an image, is not kept."""
ENCODED = "data:;base64,"
"""How bytes that are no text begin in a column of text (RFC 2397)."""

PREDICTION_FIELDS = pa.schema(
    [
        pa.field("prediction_id", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),  # index of the instance in its request
        pa.field("time", TIME, nullable=False),  # when the request had arrived; when the batch run began
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("track", pa.string(), nullable=False),  # stable, canary, shadow; stable for `millrace batch`
        pa.field("protocol", pa.string(), nullable=False),  # grpc, rest, batch
        pa.field("signature", pa.string(), nullable=False),
        pa.field("latency_ms", pa.float32(), nullable=False),  # until the backend's answer was complete; 0 for batch
        pa.field("label", pa.string()),  # the predicted class, where the model says one
        pa.field("confidence", pa.float32()),
    ]
)
"""The columns that every row has; `feature/…` and `output/…` follow."""

LABEL_FIELDS = pa.schema(
    [
        pa.field("prediction_id", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),  # the truth; numbers as text
        pa.field("labelled_at", TIME, nullable=False),  # when somebody knew
        pa.field("received_at", TIME, nullable=False),  # when we were told
        pa.field("source", pa.string(), nullable=False),  # api, import, or BY_REVIEW
        pa.field("reviewer", pa.string()),
    ]
)
"""The columns of a label."""


def log_folder(predictions: Path, model: str, time: datetime) -> Path:
    """Where the log of a model's day lies. `time` is aware."""
    return predictions / "log" / f"model={model}" / f"day={time:%Y-%m-%d}"


def label_folder(predictions: Path, model: str, time: datetime) -> Path:
    """Where labels that arrived on a day lie. `time` is `received_at`."""
    return predictions / "labels" / f"model={model}" / f"day={time:%Y-%m-%d}"


def text_of(value: bytes | str) -> str:
    """Text as it is; other bytes as a `data:` URL."""
    content = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"{ENCODED}{base64.b64encode(content).decode()}"


def bytes_of(text: str) -> bytes:
    """What `text_of` made a text of. Text that only looks like its `data:` URL stays text."""
    try:
        return base64.b64decode(text.removeprefix(ENCODED), validate=True) if text.startswith(ENCODED) else text.encode()
    except ValueError:
        return text.encode()
