"""Asking a model server, TensorFlow Serving or our own, without importing TensorFlow.

`GrpcClient` and `RestClient` offer the same three questions: `predict`, `signatures` and `status`. `connect` picks one. The
gateway and the `millrace predict` command stand on this; the server's side of the conversation is `mlserving.server.local_server`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from mlserving.client.signature import ModelSpec, Signature, Tensor

DEFAULT_GRPC = "127.0.0.1:8500"
DEFAULT_REST = "127.0.0.1:8501"
DEFAULT_SIGNATURE = "serving_default"
EXPLAIN_SIGNATURE = "explain"
"""Takes what the default one takes, and says why as well; only where the model was exported with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest:
    """One call: `inputs` by name; `outputs` names what to return, everything when empty."""

    model: ModelSpec
    inputs: Mapping[str, Tensor]
    signature: str = DEFAULT_SIGNATURE
    outputs: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResponse:
    """What the model gave. `version` is the version that answered; REST does not tell it (None)."""

    outputs: Mapping[str, Tensor]
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """Where one version is on its way: START, LOADING, AVAILABLE, UNLOADING, END. `error` is empty when all is well."""

    version: int
    state: str
    error: str


class Client(Protocol):
    """What both clients do. All methods raise Unavailable, NotServed, or ConfigError with the server's own words."""

    def predict(self, request: PredictRequest) -> PredictResponse:
        """Run the model once over a batch."""

    def signatures(self, model: ModelSpec) -> dict[str, Signature]:
        """The signatures of the version that would answer `model`."""

    def status(self, model: ModelSpec) -> list[VersionStatus]:
        """All known versions of the model (or the one asked for), newest first."""

    def close(self) -> None:
        """Let go of the connection."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def connect(address: str, *, grpc: bool, timeout: float = 30.0) -> Client:
    """A client of the server at `address` (`host:port`, for REST also a URL). Nothing is sent yet. `timeout` in seconds."""
    if grpc:
        from mlserving.client.grpc_client import GrpcClient

        return GrpcClient(address, timeout=timeout)
    from mlserving.client.rest_client import RestClient

    return RestClient(address, timeout=timeout)
