"""`millrace predict`: one question to a model server, typed by hand or read from a file. It never imports TensorFlow."""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlserving.client import request
from mlserving.client.ask import DEFAULT_GRPC, DEFAULT_REST, DEFAULT_SIGNATURE, EXPLAIN_SIGNATURE, Client, PredictRequest, connect
from mlserving.client.signature import ModelSpec, Signature, Tensor
from mlserving.errors import ConfigError

_BATCH = 256
_LONGEST_LIST = 6

_DESCRIPTION = """\
Ask a served model for its prediction, over REST (the default, quicker to start) or gRPC.

The model's own signature tells the type of each value. Inputs that are left out count as missing. Without
values, one row with everything missing is sent: it shows what the model gives."""

_EPILOG = """\
examples:
  millrace predict transactions --inputs              what the model takes and gives
  millrace predict transactions 'merchant=ACME TOOLS 0042' amount=12.50
  millrace predict transactions --version 3 --json merchant=ACME
  millrace predict transactions --explain merchant=ACME amount=900
                                                      and how much of its score each feature makes (of similarity: each neighbour)
  millrace predict image-content image@photo.jpg      the bytes of a file
  millrace predict transactions --grpc --file rows.jsonl
                                                      one JSON object a line; - reads standard input

exit codes: 0 answered, 2 wrong input or nothing of that name is served, 4 no server answers"""


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_intermixed_args(argv)  # options may stand between the values
    model = ModelSpec(name=arguments.model, version=arguments.version, label=arguments.label)
    address = arguments.address or (DEFAULT_GRPC if arguments.grpc else DEFAULT_REST)
    with connect(address, grpc=arguments.grpc, timeout=arguments.timeout) as client:
        signature = _signature(client, model, arguments.signature)
        if arguments.inputs:
            _print_signature(signature, as_json=arguments.json)
            return 0
        rows = _rows(arguments, signature)
        answers = [row for batch in _batches(rows) for row in _ask(client, model, signature, batch)]
    _print_answers(answers, as_json=arguments.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace predict", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument(
        "values", nargs="*", metavar="NAME=VALUE", help="an input's value; a list is written as JSON; NAME@FILE: what a file holds"
    )
    parser.add_argument("--file", metavar="FILE", help='rows as JSON, one object a line; bytes are {"b64": "…"}; - is standard input')
    parser.add_argument("--address", metavar="HOST:PORT", help=f"the server (default: {DEFAULT_REST}, with --grpc {DEFAULT_GRPC})")
    protocol = parser.add_mutually_exclusive_group()
    protocol.add_argument("--grpc", action="store_true", help="ask over gRPC")
    protocol.add_argument("--rest", action="store_false", dest="grpc", help="ask over REST (the default)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, metavar="N", help="this version (default: the newest one served)")
    which.add_argument("--label", metavar="L", help="the version with this label")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--signature", default=DEFAULT_SIGNATURE, metavar="NAME", help=f"default: {DEFAULT_SIGNATURE}")
    how.add_argument(
        "--explain", action="store_const", const=EXPLAIN_SIGNATURE, dest="signature", help="say why, where the model was exported with it"
    )
    parser.add_argument("--inputs", action="store_true", help="show what the model takes and gives, and ask nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds to wait for the server (default 30)")
    return parser


def _signature(client: Client, model: ModelSpec, name: str) -> Signature:
    signatures = client.signatures(model)
    if name == EXPLAIN_SIGNATURE and name not in signatures:
        raise ConfigError(
            f"{model} was exported without explanations. Add `explanations: {{}}` to `deployment` in its project.yaml, then `millrace run` again."
        )
    if name not in signatures:
        raise ConfigError(f"{model} has no signature {name!r}. It has: {', '.join(signatures)}. Name one: --signature NAME")
    return signatures[name]


def _rows(arguments: argparse.Namespace, signature: Signature) -> list[dict[str, Any]]:
    if not arguments.file:
        return [request.row_of_arguments(arguments.values, signature, _bytes_of)]
    if arguments.values:
        raise ConfigError("Give values by NAME=VALUE or by --file, not both.")
    rows = request.rows_of_lines(_lines(arguments.file), signature, arguments.file)
    if not rows:
        raise ConfigError(f"{arguments.file} has no rows. Write one object a line, such as {request.example_line(signature)}")
    return rows


def _bytes_of(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror or error}. After @ comes the path of a file; a text is NAME=TEXT."
        ) from error


def _lines(file: str) -> list[str]:
    if file == "-":
        return sys.stdin.read().splitlines()
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. Check --file.") from error


def _batches(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]


def _ask(client: Client, model: ModelSpec, signature: Signature, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs for each row."""
    sent = PredictRequest(model=model, signature=signature.name, inputs=request.tensors(rows, signature))
    columns = {name: _printable(tensor) for name, tensor in client.predict(sent).outputs.items()}
    if any(not isinstance(column, list) or len(column) != len(rows) for column in columns.values()):
        return [columns]  # no batch dimension: the outputs belong to the call as a whole
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _printable(tensor: Tensor) -> Any:
    if tensor.dtype == "DT_STRING":
        return Tensor(dtype=tensor.dtype, shape=tensor.shape, values=tuple(map(_text, tensor.values))).nested()
    if tensor.dtype in {"DT_FLOAT", "DT_HALF"}:  # seven digits are what a float32 holds; the rest is noise of the double
        return Tensor(dtype=tensor.dtype, shape=tensor.shape, values=tuple(float(f"{value:.7g}") for value in tensor.values)).nested()
    return tensor.nested()


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _print_answers(answers: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for answer in answers:
            print(json.dumps(answer, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    answers = [_with_because(answer) for answer in answers]
    table = Table(*answers[0])
    for answer in answers:
        table.add_row(*(Text(_short(value)) for value in answer.values()))
    Console().print(table)


def _with_because(answer: dict[str, Any]) -> dict[str, Any]:
    """An explained answer with what makes it and how much, and its label where it has one, in one column, what makes most first."""
    if not {"explained_by", "attributions"} <= answer.keys():
        return answer
    labels = [f" ({label})" for label in answer.get("explained_by_label", ())] or [""] * len(answer["explained_by"])
    parts = zip(answer["explained_by"], labels, answer["attributions"], strict=True)
    because = ", ".join(f"{name}{label} {part:+.2g}" for name, label, part in itertools.islice(parts, _LONGEST_LIST))
    told = ("explained_by", "explained_by_label", "attributions")
    return {**{name: value for name, value in answer.items() if name not in told}, "because": because}


def _short(value: Any) -> str:
    match value:
        case float():
            return f"{value:.4g}"
        case list() if len(value) > _LONGEST_LIST:
            return f"{' '.join(map(_short, value[:_LONGEST_LIST]))} … ({len(value)} values)"
        case list():
            return " ".join(map(_short, value))
        case _:
            return str(value)


def _print_signature(signature: Signature, *, as_json: bool) -> None:
    if as_json:
        sides = {"inputs": signature.inputs, "outputs": signature.outputs}
        print(
            json.dumps({side: {name: {"dtype": s.dtype, "shape": s.shape} for name, s in specs.items()} for side, specs in sides.items()})
        )
        return
    for title, specs in (("Takes", signature.inputs), ("Gives", signature.outputs)):
        print(title)
        for spec in specs.values():
            print(f"  {spec}")
