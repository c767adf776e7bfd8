"""A gRPC request: its header block for the model server, and its answer's for the caller."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from mlserving.gateway import frames as f
from mlserving.gateway.calls import GRPC_CODES, Answer, Call, Refusal
from mlserving.gateway.frames import literal
from mlserving.gateway.heads import PREDICTION_ID, AnswerHead, RequestHead, our_headers, status_trailers, timeout_header, trailers_only
from mlserving.gateway.model_spec import ANSWER, MULTI_INFERENCE, PREDICT_REQUEST, Malformed, Spec, message_of, read_spec

if TYPE_CHECKING:
    from mlserving.gateway.endpoints import Endpoint
    from mlserving.gateway.grpc_backend import Upstream
    from mlserving.gateway.grpc_server import ClientStream, GrpcServer
    from mlserving.gateway.relay import Relay

REQUEST_SPECS = {
    "/tensorflow.serving.PredictionService/Predict": PREDICT_REQUEST,
    "/tensorflow.serving.PredictionService/Classify": PREDICT_REQUEST,
    "/tensorflow.serving.PredictionService/Regress": PREDICT_REQUEST,
    "/tensorflow.serving.PredictionService/MultiInference": MULTI_INFERENCE,
    "/tensorflow.serving.PredictionService/GetModelMetadata": PREDICT_REQUEST,
    "/tensorflow.serving.ModelService/GetModelStatus": PREDICT_REQUEST,
}
"""The methods that are passed on, and where their request names its model."""
_ANSWER_SPECS = {
    "Predict": ANSWER,
    "Classify": ANSWER,
    "Regress": ANSWER,
    "MultiInference": MULTI_INFERENCE,
    "GetModelMetadata": PREDICT_REQUEST,
}
_CANCELLED, _UNAVAILABLE = 1, 14


class GrpcAnswer:
    """Headers, message and trailers of an answer. `head` is None where it was nothing but trailers."""

    __slots__ = ("body", "head", "status", "trailers")

    def __init__(self, head: AnswerHead | None, body: bytes, trailers: AnswerHead) -> None:
        self.head, self.body, self.trailers = head, body, trailers
        self.status = 2 if trailers.code is None else trailers.code

    @property
    def code(self) -> str:
        """The status' name."""
        return GRPC_CODES[self.status] if self.status < len(GRPC_CODES) else "UNKNOWN"

    @property
    def good(self) -> bool:
        """OK, with a message."""
        return self.status == 0

    @property
    def elsewhere(self) -> bool:
        """A server that is going, or whose queue is full. CANCELLED is the former: the caller would not be told that."""
        return self.status in {_CANCELLED, _UNAVAILABLE}


class GrpcCall(Call):
    """A call that came by gRPC and goes on by gRPC. A shadow copy has no connection."""

    __slots__ = ("connection", "head", "stream")
    protocol = "grpc"

    def __init__(  # noqa: PLR0917  what a call is made of
        self, relay: Relay, connection: GrpcServer | None, stream: ClientStream | None, head: RequestHead, spec: Spec, body: bytes
    ) -> None:
        super().__init__(relay, head.path[head.path.rfind("/") + 1 :], spec, body)
        self.connection, self.stream, self.head = connection, stream, head

    def block(self, endpoint: Endpoint) -> bytes:
        """The header block that asks `endpoint`, with the time that is left."""
        head = self.head
        left = timeout_header(self.expires - time.monotonic())
        return b"".join((head.start, endpoint.authority, head.rest, left, literal(b"x-prediction-id", self.prediction_id.encode())))

    def send(self, endpoint: Endpoint) -> None:
        """See Call."""
        endpoint.grpc.send(self)

    def withdraw(self) -> None:
        """See Call."""
        upstream: Upstream | None = self.upstream  # type: ignore[assignment]  # what grpc_backend put there
        if upstream is not None:
            self.upstream = None
            upstream.withdraw()

    def version_in(self, answer: Answer) -> int:
        """See Call."""
        paths = _ANSWER_SPECS.get(self.method)
        if paths is None or not answer.good:
            return 0
        try:
            return read_spec(self._message(answer), paths).version
        except Malformed:
            return 0

    def deliver(self, answer: Answer, version: int) -> None:
        """See Call."""
        if self.connection is None or self.stream is None:
            self.release()
            return
        assert isinstance(answer, GrpcAnswer)
        ours = our_headers(self.prediction_id, version, self.track.track)
        self.connection.answer(self.stream, answer, ours)

    def refuse(self, refusal: Refusal, text: str) -> None:
        """See Call."""
        if self.connection is None or self.stream is None:
            self.release()
            return
        ours = ((PREDICTION_ID, self.prediction_id),) if self.prediction_id else ()
        self.connection.refuse(self.stream, trailers_only(refusal.grpc, text, ours))

    def header(self, name: str) -> str:
        """See Call."""
        return self.head.fields.get(name, "")

    def copy(self) -> GrpcCall:
        """See Call."""
        return GrpcCall(self.relay, None, None, self.head, self.spec, self.body)

    def logged_request(self) -> bytes:
        """See Call."""
        return message_of(self.body, self.head.encoding, self.relay.most_body)

    def logged_answer(self, answer: Answer) -> bytes:
        """See Call."""
        return self._message(answer)

    def _message(self, answer: Answer) -> bytes:
        assert isinstance(answer, GrpcAnswer)
        return message_of(answer.body, answer.head.encoding if answer.head else "", self.relay.most_body)


def answer_frames(stream_id: int, answer: GrpcAnswer, ours: bytes, most: int) -> tuple[bytes, bytes]:
    """The frames before and after the message. A status alone still has its headers: that is where ids are looked for."""
    block = b"\x88" + (answer.head.block if answer.head else literal(b"content-type", b"application/grpc")) + ours
    trailers = answer.trailers.block if answer.trailers.code is not None else status_trailers(2, "the model server named no status")
    if answer.head is None:
        trailers = _without_content_type(answer.trailers.block)
    return f.headers(stream_id, block, end=False, most=most), f.headers(stream_id, trailers, end=True, most=most)


def _without_content_type(block: bytes) -> bytes:
    for kind in (b"application/grpc", b"application/grpc+proto"):
        with contextlib.suppress(ValueError):
            field = literal(b"content-type", kind)
            at = block.index(field)
            return block[:at] + block[at + len(field) :]
    return block
