"""Asking a served version its golden requests again: does it answer as it did when it was published?

A difference means that what is served is not what was published: other weights, another server, or a feature computed differently. No metric of
traffic shows that.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlserving import store
from mlserving.client import request
from mlserving.client.ask import DEFAULT_SIGNATURE, Client, PredictRequest
from mlserving.client.signature import ModelSpec
from mlserving.errors import ConfigError, ServingError, Unavailable
from mlserving.monitor.findings import Parity

_SHOWN = 80


def check(client: Client, model: str, version: int, folder: Path, tolerance: float) -> Parity | None:
    """Ask every golden request of a version; None where it carries none.

    Args:
        client: of the server that serves it.
        model: the model's name.
        version: the version that must answer.
        folder: of the version in the store.
        tolerance: how far a number may be off, relative to the expected value where that is above 1.

    Raises:
        ConfigError: the file of golden requests is damaged.
        Unavailable: the server does not answer at all.
    """
    path = folder / store.GOLDEN_REQUESTS
    if not path.is_file():
        return None
    golden = list(_golden(path))
    spec = ModelSpec(name=model, version=version)
    signature = client.signatures(spec)[DEFAULT_SIGNATURE]
    apart, worst, example = 0, 0.0, ""
    for number, (inputs, expected) in enumerate(golden, start=1):
        sent = PredictRequest(model=spec, inputs=request.tensors([inputs], signature))
        try:
            answered = {name: tensor.nested() for name, tensor in client.predict(sent).outputs.items()}
            difference, where = _apart(expected, {name: value[0] for name, value in answered.items()})
        except Unavailable:
            raise
        except ServingError as error:
            difference, where = math.inf, str(error)
        if difference > tolerance:
            apart += 1
            example = example or f"request {number}, {where}"[: _SHOWN * 2]
        worst = max(worst, difference)
    return Parity(version=version, requests=len(golden), failures=apart, worst=worst, example=example, tolerance=tolerance)


def _golden(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            parts = json.loads(line)
            yield {name: _sent(value) for name, value in parts["inputs"].items()}, dict(parts["outputs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} does not hold golden requests: {error}. Publish the version again: `millrace run PROJECT_DIR`."
        ) from error


def _sent(value: Any) -> Any:
    """A value of a REST row as the client takes it: bytes from `{"b64": …}`, and nothing for a number that is none."""
    if isinstance(value, Mapping):
        return base64.b64decode(value["b64"])
    if isinstance(value, list):
        return [_sent(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _apart(expected: Mapping[str, Any], answered: Mapping[str, Any]) -> tuple[float, str]:
    """The largest difference over all outputs, and where."""
    found = [(_difference(value, answered.get(name)), name) for name, value in sorted(expected.items())]
    worst, name = max(found, default=(0.0, ""))
    return worst, f"{name}: expected {_short(expected.get(name))}, got {_short(answered.get(name))}"


def _difference(expected: Any, answered: Any) -> float:
    if isinstance(expected, list):
        if not isinstance(answered, list) or len(answered) != len(expected):
            return math.inf
        return max((_difference(one, other) for one, other in zip(expected, answered, strict=True)), default=0.0)
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return _number_difference(float(expected), answered)
    text = answered.decode(errors="replace") if isinstance(answered, bytes) else answered
    return 0.0 if text == (_sent(expected).decode(errors="replace") if isinstance(expected, Mapping) else expected) else 1.0


def _number_difference(expected: float, answered: Any) -> float:
    if not isinstance(answered, int | float):
        return math.inf
    if math.isnan(expected) or math.isnan(answered):
        return 0.0 if math.isnan(expected) and math.isnan(answered) else math.inf
    return 0.0 if expected == answered else abs(answered - expected) / max(1.0, abs(expected))


def _short(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
