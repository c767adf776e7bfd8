"""A version answers its warm-up requests before it becomes available, so the first caller does not wait for graph optimisation.

The format is TensorFlow Serving's: a TFRecord of `PredictionLog` in `store.WARMUP_REQUESTS`, at most a thousand records. A
record that the model cannot answer means that the model is broken, and it is not made available.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from mlserving.errors import Unavailable
from mlserving.server import answers, examples
from mlserving.server.answer_errors import RequestError
from mlserving.server.servable import Servable
from mlserving.server.tensor_protos import from_proto
from mlserving.store import WARMUP_REQUESTS

_MOST = 1000


def load_warm(model: str, version: int, folder: Path) -> Servable:
    """Load a version and let it answer its warm-up requests.

    Raises:
        Unavailable: the folder is no SavedModel, or it cannot answer one of them.
    """
    servable = Servable(model, version, folder)
    try:
        warm_up(servable, folder)
    except Unavailable:
        servable.close()
        raise
    return servable


def warm_up(servable: Servable, folder: Path) -> None:
    """Let it answer the warm-up requests in its version folder, if there are any.

    Raises:
        Unavailable: it cannot answer one of them.
    """
    file = folder / WARMUP_REQUESTS
    if not file.is_file():
        return
    try:
        for record in islice(tf.data.TFRecordDataset(str(file)).as_numpy_iterator(), _MOST):
            _replay(servable, prediction_log_pb2.PredictionLog.FromString(record))
    except (RequestError, DecodeError, tf.errors.OpError) as error:
        raise Unavailable(f"{folder} could not answer a request of its {WARMUP_REQUESTS}: {error}") from error


def _replay(servable: Servable, record: Any) -> None:
    match record.WhichOneof("log_type"):
        case "predict_log":
            request = record.predict_log.request
            feeds = {name: from_proto(name, proto) for name, proto in request.inputs.items()}
            answers.predict(servable, request.model_spec.signature_name, feeds, request.output_filter)
        case "classify_log":
            request = record.classify_log.request
            answers.classify(servable, request.model_spec.signature_name, examples.from_input(request.input))
        case "regress_log":
            request = record.regress_log.request
            answers.regress(servable, request.model_spec.signature_name, examples.from_input(request.input))
        case _:
            pass  # multi-inference and session runs warm nothing that the others do not
