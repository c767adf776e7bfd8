"""`python -m mlserving golden`: does what is served answer as the version did when it was published?

A published version carries requests with its own answers (`mlserving.store.GOLDEN_REQUESTS`). They are asked again where callers ask: `helm test`
asks them through the gateway, an engineer asks a server at hand. It never imports TensorFlow. A difference means another version, another
build of TensorFlow, or a request that something on the way changed.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlserving.client.ask import DEFAULT_REST, DEFAULT_SIGNATURE, Client, PredictRequest, connect
from mlserving.client.signature import ModelSpec, Signature, Tensor
from mlserving.errors import ConfigError, NotServed, Unavailable

DIFFERENT = 3
"""Exit code: look at the report."""
TOLERANCE = 1e-4
"""Of a number, relative to what is expected where that is above 1: the same graph on another processor stays far below."""
_SHOWN = 10
_Row = Mapping[str, Mapping[str, Any]]
"""`inputs` and `outputs` of one request."""

_DESCRIPTION = """\
Ask a served version the requests whose answers it gave when it was published, and compare.

Numbers may differ by --tolerance, relative to the expected value where that is above 1; text must be equal."""

_EPILOG = """\
examples:
  python -m mlserving golden transactions 7 --file .millrace/models/transactions/7/assets.extra/golden_requests.jsonl
  python -m mlserving golden transactions 7 --file golden.jsonl --address gateway:8500 --grpc

exit codes: 0 all answers are as published, 2 nothing to ask, 3 some differ, 4 nobody answers"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One output of one request that is not as it was published."""

    line: int
    output: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        """For people: `line 3: scores: expected [0.25, 0.75], got [0.5, 0.5]`."""
        return f"line {self.line}: {self.output}: expected {_short(self.expected)}, got {_short(self.found)}"


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_args(argv)
    model = ModelSpec(name=arguments.model, version=arguments.version)
    requests = list(itertools.islice(_read(arguments.file), arguments.most))
    if not requests:
        raise ConfigError(f"{arguments.file} has no requests. `millrace run` publishes them with each version.")
    with connect(arguments.address, grpc=arguments.grpc, timeout=arguments.timeout) as client:
        signature = _await(client, model, arguments.wait)
        differences = [
            found for line, row in requests for found in _ask(client, model, signature, line=line, row=row, tolerance=arguments.tolerance)
        ]
    for difference in differences[:_SHOWN]:
        print(difference)
    lines = len({difference.line for difference in differences})
    said = f"{lines} are answered differently" if lines else "all are answered as published"
    print(f"{len(requests)} golden requests of {model}, asked at {arguments.address} over {'gRPC' if arguments.grpc else 'REST'}: {said}.")
    return DIFFERENT if differences else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlserving golden", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument("version", metavar="N", type=int, help="the version that is asked")
    parser.add_argument("--file", required=True, type=Path, metavar="FILE", help="its golden_requests.jsonl")
    parser.add_argument("--address", default=DEFAULT_REST, metavar="HOST:PORT", help=f"who is asked (default {DEFAULT_REST})")
    parser.add_argument("--grpc", action="store_true", help="ask over gRPC (default: REST)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="T", help=f"default {TOLERANCE:g}")
    parser.add_argument("--most", type=int, default=None, metavar="N", help="ask the first N (default: all)")
    parser.add_argument("--wait", type=float, default=0.0, metavar="S", help="seconds to wait until somebody answers (default 0)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds that an answer may take (default 30)")
    return parser


def _read(file: Path) -> Iterator[tuple[int, _Row]]:
    """The requests with their line numbers. Raises ConfigError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. Name the version's golden_requests.jsonl with --file.") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            yield number, {"inputs": dict(row["inputs"]), "outputs": dict(row["outputs"])}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f'{file}, line {number} is not {{"inputs": …, "outputs": …}}: {error}') from error


def _await(client: Client, model: ModelSpec, seconds: float) -> Signature:
    """The signature that is asked, once somebody serves the version."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            signatures = client.signatures(model)
            break
        except (Unavailable, NotServed):
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.5)
    if DEFAULT_SIGNATURE not in signatures:
        raise ConfigError(f"{model} has no signature {DEFAULT_SIGNATURE}, which golden requests are for. It has: {', '.join(signatures)}")
    return signatures[DEFAULT_SIGNATURE]


def _ask(client: Client, model: ModelSpec, signature: Signature, *, line: int, row: _Row, tolerance: float) -> list[Difference]:
    inputs = {name: _tensor(signature, name, value, line) for name, value in row["inputs"].items()}
    answer = client.predict(PredictRequest(model=model, inputs=inputs, signature=signature.name)).outputs
    found = {name: tensor.nested()[0] if tensor.shape else tensor.nested() for name, tensor in answer.items()}
    return [
        Difference(line=line, output=name, expected=expected, found=found.get(name, "nothing"))
        for name, expected in sorted(row["outputs"].items())
        if name not in found or not agrees(expected, found[name], tolerance)
    ]


def _tensor(signature: Signature, name: str, value: Any, line: int) -> Tensor:
    if name not in signature.inputs:
        raise ConfigError(f"Line {line} has an input {name!r} that the model does not take. {signature.describe_inputs()}")
    return Tensor.of(signature.inputs[name].dtype, [_plain(value)])


def agrees(expected: Any, found: Any, tolerance: float) -> bool:
    """Whether an output is what was expected, both in nested lists; NaN is equal to NaN."""
    expected, found = _plain(expected), _plain(found)
    if isinstance(expected, list) or isinstance(found, list):
        alike = isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found)
        return alike and all(agrees(one, other, tolerance) for one, other in zip(expected, found, strict=True))
    if isinstance(expected, bytes) or isinstance(found, bytes):
        return bool(expected == found)
    if math.isnan(expected) or math.isnan(found) or math.isinf(expected):
        return bool(expected == found or (math.isnan(expected) and math.isnan(found)))
    return bool(abs(expected - found) <= tolerance * max(1.0, abs(expected)))


def _plain(value: Any) -> Any:
    """JSON's spellings of bytes as bytes: text, and `{"b64": …}`."""
    match value:
        case str():
            return value.encode()
        case {"b64": text}:
            return base64.b64decode(text)
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"  # noqa: PLR2004  of a line
