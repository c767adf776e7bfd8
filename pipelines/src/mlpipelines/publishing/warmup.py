"""What travels with a published model: requests that warm a server up, and requests whose answers are known.

The warm-up requests are read by TensorFlow Serving (a TFRecord of PredictionLog) and by our own server, before a version takes
traffic: `mlserving.server.warmup` is their reader, and whoever publishes has it answer them once. The golden requests have one request a
line with the answer of the model as it was published, in TensorFlow Serving's REST row format; a rollout or a health check asks
them again and compares. Where both lie in a version is said in `mlserving.store`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlpipelines.errors import Unavailable
from mlpipelines.evaluation.served_model import ServedModel, answer_rows, project_for
from mlpipelines.project import Project
from mlpipelines.transformation.raw_features import to_tensors
from mlserving.client.ask import DEFAULT_SIGNATURE, EXPLAIN_SIGNATURE
from mlserving.store import GOLDEN_REQUESTS, WARMUP_REQUESTS


def write_requests(folder: Path, model: ServedModel, project: Project, name: str, rows: pa.Table) -> None:
    """Write both files for `rows` to the version that is in `folder`.

    Args:
        folder: of the SavedModel; `assets.extra` is made in it if it is not there.
        model: the model that answers the golden requests.
        project: whose features the rows have.
        name: the model's name in requests.
        rows: raw rows, one for each request.

    Raises:
        Unavailable: the disk is full or cannot be written.
    """
    readable = project_for(model, project, rows)
    requests = [_request(readable, rows, place) for place in range(len(rows))]
    answers = answer_rows(model, project, rows)
    lines = [_golden_line(readable, request, answers, place) for place, request in enumerate(requests)]
    try:
        for file in (WARMUP_REQUESTS, GOLDEN_REQUESTS):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
        explained = requests[:1] if EXPLAIN_SIGNATURE in model.servable.signatures else []
        asked = [*((DEFAULT_SIGNATURE, request) for request in requests), *((EXPLAIN_SIGNATURE, request) for request in explained)]
        _write_warmup(folder / WARMUP_REQUESTS, name, asked)
        (folder / GOLDEN_REQUESTS).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise Unavailable(
            f"The requests that go with {name} could not be written to {folder}: {error.strerror or error}. Nothing was published. "
            "Free some space and run `millrace run` again."
        ) from error


def _request(project: Project, rows: pa.Table, place: int) -> dict[str, npt.NDArray[Any]]:
    (batch,) = rows.slice(place, 1).combine_chunks().to_batches()
    return to_tensors(project, batch)


def _write_warmup(file: Path, name: str, requests: Sequence[tuple[str, dict[str, npt.NDArray[Any]]]]) -> None:
    """`requests`: the signature that is asked, and the inputs.

    Raises:
        OSError: the file cannot be written.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    from mlserving.server.tensor_protos import fill

    try:
        with tf.io.TFRecordWriter(str(file)) as writer:
            for signature, inputs in requests:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                for feature, value in sorted(inputs.items()):
                    fill(request.inputs[feature], value)
                log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
                writer.write(log.SerializeToString(deterministic=True))
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def _golden_line(project: Project, inputs: Mapping[str, npt.NDArray[Any]], answers: Mapping[str, npt.NDArray[Any]], place: int) -> str:
    row = {name: _rest(value[0], binary=project.features[name] == "bytes") for name, value in sorted(inputs.items())}
    answer = {name: _rest(value[place], binary=False) for name, value in sorted(answers.items())}
    return json.dumps({"inputs": row, "outputs": answer}, ensure_ascii=False)  # NaN stays the token NaN, which TF Serving reads


def _rest(value: Any, *, binary: bool) -> Any:
    """A value as REST rows have it: text as text, bytes that are no text as `{"b64": …}`."""
    if isinstance(value, bytes):
        text = _text(value)
        return {"b64": base64.b64encode(value).decode()} if binary or text is None else text
    if isinstance(value, np.ndarray):
        return [_rest(inner, binary=binary) for inner in value]
    return value.item() if isinstance(value, np.generic) else value


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
