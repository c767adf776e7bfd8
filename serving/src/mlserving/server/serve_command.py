"""`millrace serve`: arguments in, a running model server out. The work is in `mlserving.server.local_server`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import socket
import sys
from itertools import islice
from pathlib import Path

from mlserving import store
from mlserving.client import request
from mlserving.client.ask import DEFAULT_REST, DEFAULT_SIGNATURE, connect
from mlserving.client.signature import ModelSpec
from mlserving.errors import ConfigError
from mlserving.server import model_config, tensorflow_model_server
from mlserving.server.local_server import Ready, Settings, run
from mlserving.workspace import named_store

_DESCRIPTION = """\
Answer prediction requests from the model store, over TensorFlow Serving's gRPC and REST.

Serves the newest version of each MODEL (all models of the store when none is named) and looks at the store once a
second: a new version is loaded and warmed up beside the one that answers, then takes over without a failed request. A
version that does not load is reported and the one before stays. SIGTERM and Ctrl-C finish what is under way.

If tensorflow_model_server is on PATH, it is run instead, with the same models and ports.

With --tracks, a server for each version that `millrace rollout` wants and the gateway in front of them: canary, promotion and rollback on one machine. A
published version then takes requests only by a rollout. What dies is started again; nothing is left behind."""

_EPILOG = """\
examples:
  millrace serve                          everything in the store, gRPC on 8500, REST on 8501
  millrace serve transactions             one model
  millrace serve --grpc-port 0 --rest-port 0 --ready-file ready.json
                                          any free ports, told in ready.json once all models are loaded
  millrace serve --tracks transactions    behind the gateway: weights, prediction log, rollouts; admin port on 8502
  millrace serve --model-config models.config
                                          several versions and labels, in TensorFlow Serving's model_config_list

exit codes: 0 stopped by SIGTERM, 2 wrong argument or port taken, 4 a named model cannot be loaded, 130 stopped by Ctrl-C"""


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_intermixed_args(argv)
    if arguments.tracks:
        return _on_tracks(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    program = tensorflow_model_server.found()
    if arguments.implementation == "tensorflow" and not program:
        raise ConfigError(f"{tensorflow_model_server.PROGRAM} is not on PATH. Install it, or leave --implementation away.")
    if program and arguments.implementation != "python":
        _become(program, arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its start-up chatter is about the build, not about us
    print("Loading TensorFlow and the models …", flush=True)
    return run(_settings(arguments), announce)


def _on_tracks(arguments: argparse.Namespace) -> int:
    if arguments.store or arguments.model_config:
        raise ConfigError("--tracks goes by the workspace: leave --store and --model-config away, or name a store by MILLRACE_MODEL_STORE.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    from mlserving.tracks.command import run as run_tracks

    return run_tracks(arguments)


def announce(ready: Ready) -> None:
    """Print where the server listens and what to type next."""
    served = ", ".join(f"{name} {'+'.join(map(str, versions))}" for name, versions in ready.models.items() if versions)
    name = next(name for name, versions in ready.models.items() if versions)
    print(
        f"Serving {served}\n  gRPC  {ready.grpc}\n  REST  http://{ready.rest}\nTry:\n{_examples(ready.rest, name)}\nCtrl-C stops it.",
        flush=True,
    )


def _examples(rest: str, name: str) -> str:
    """Requests to type, with values of the types that the model takes."""
    with connect(rest, grpc=False) as client:
        signature = client.signatures(ModelSpec(name=name)).get(DEFAULT_SIGNATURE)
    if signature is None:
        return f"  curl http://{rest}/v1/models/{name}/metadata"
    address = "" if rest == DEFAULT_REST else f" --address {rest}"
    row = request.example_row(signature)
    values = " ".join(
        f"{key}={shlex.quote(value if isinstance(value, str) else json.dumps(value))}" for key, value in islice(row.items(), 2)
    )
    body = json.dumps({"instances": [row]})
    return f"  millrace predict {name}{address} {values}\n  curl -d {shlex.quote(body)} http://{rest}/v1/models/{name}:predict"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace serve", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="what to serve (default: every model in the store)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workspace", type=Path, metavar="DIR", help="serve DIR/models (default: MILLRACE_WORKSPACE, else .millrace)")
    where.add_argument(
        "--store", type=Path, metavar="DIR", help="the model store itself (default: MILLRACE_MODEL_STORE, else the workspace's)"
    )
    parser.add_argument("--tracks", action="store_true", help="serve through the gateway, with canary and stable (see above)")
    parser.add_argument(
        "--admin-port", type=int, default=8502, metavar="N", help="with --tracks: metrics and what is in force; default 8502"
    )
    parser.add_argument(
        "--log-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="with --tracks: so long logged predictions wait for company (default 60)",
    )
    where.add_argument("--model-config", type=Path, metavar="FILE", help="a model_config_list; read again when it changes")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--grpc-port", type=int, default=8500, metavar="N", help="default 8500; 0 takes a free one")
    parser.add_argument("--rest-port", type=int, default=8501, metavar="N", help="default 8501; 0 takes a free one")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help='written once all models are loaded: {"grpc", "rest", "pid"}')
    parser.add_argument("--threads", type=int, default=16, metavar="N", help="gRPC requests answered at a time (default 16)")
    parser.add_argument(
        "--grace", type=float, default=30.0, metavar="S", help="seconds that requests under way get on SIGTERM (default 30)"
    )
    parser.add_argument("--implementation", choices=["auto", "python", "tensorflow"], default="auto", help="which server (default auto)")
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    wanted, must = _wanted(arguments)
    return Settings(
        wanted=wanted,
        must=must,
        host=arguments.host,
        grpc_port=arguments.grpc_port,
        rest_port=arguments.rest_port,
        threads=arguments.threads,
        grace=arguments.grace,
        ready_file=arguments.ready_file,
    )


def _wanted(arguments: argparse.Namespace) -> tuple[model_config.Wanted, tuple[str, ...]]:
    """What to serve, and which models must be there from the start: those that somebody named."""
    if arguments.model_config:
        if arguments.models:
            raise ConfigError("Name the models in the --model-config file or on the command line, not both.")
        wanted = model_config.from_file(arguments.model_config)
        return wanted, tuple(model.name for model in wanted())
    folder = named_store(arguments.store, arguments.workspace)
    present = store.models(folder)
    absent = [name for name in arguments.models if name not in present]
    if absent or not present:
        what = f"no model {absent[0]!r}" if absent else "no model"
        raise ConfigError(
            f"There is {what} in {folder}. It has: {', '.join(present) or 'nothing'}. Train and publish one: millrace run PROJECT_DIR"
        )
    return model_config.everything_in(folder, arguments.models), tuple(arguments.models)


def _become(program: str, arguments: argparse.Namespace) -> None:
    wanted, _ = _wanted(arguments)
    models = wanted()
    config = arguments.model_config.absolute() if arguments.model_config else tensorflow_model_server.write_config(models)
    grpc_port, rest_port = arguments.grpc_port or _free_port(), arguments.rest_port or _free_port()
    print(f"Starting {program}. It listens on all interfaces and serves the models that are there now.", flush=True)
    tensorflow_model_server.replace_process(
        program,
        tensorflow_model_server.flags(grpc_port=grpc_port, rest_port=rest_port, config=config),
        ready_arguments=[
            f"127.0.0.1:{grpc_port}", f"127.0.0.1:{rest_port}", str(arguments.ready_file or "-"), *(model.name for model in models)
        ],
    )  # fmt: skip


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
