"""`millrace gateway`: arguments in, a running gateway out. The work is in `mlserving.gateway.service`."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlserving.gateway.service import Options, Ready, run
from mlserving.gateway.sources import source_of
from mlserving.json_log import log_json

_DESCRIPTION = """\
Stand in front of a model's tracks and speak TensorFlow Serving's gRPC and REST.

Decides for each request which track answers (gateway.yaml: weights, a sticky header), copies some to the shadow track, ends what takes too
long, names id, version and track in every answer, and spools a share of what was said for the prediction log. The settings
are read again when they change; settings that cannot be read leave those before in force."""

_EPILOG = """\
examples:
  millrace gateway --config gateway.yaml
  millrace gateway --config gateway.yaml --spool spool --predictions predictions
                              log a share of the predictions, take labels on POST /v1/labels
  millrace gateway --config configmap:serving/transactions-gateway
                              in a pod: ask the Kubernetes API for the settings, every two seconds
  millrace gateway --config gateway.yaml --grpc-port 0 --rest-port 0 --admin-port 0 --ready-file ready.json
                              any free ports, told in ready.json

Every field of gateway.yaml and every metric: docs/reference/gateway.md
exit codes: 0 stopped by SIGTERM, 2 wrong argument, settings that cannot be meant, or port taken, 4 settings that cannot be had, 130 Ctrl-C"""


def main(argv: list[str]) -> int:
    """Run the command. Returns its exit code; raises ServingError."""
    arguments = _parser().parse_args(argv)
    log_json()
    return run(_options(arguments), announce)


def announce(ready: Ready) -> None:
    """Print where the gateway listens."""
    print(
        f"The gateway answers for {', '.join(ready.models)}\n  gRPC   {ready.grpc}\n  REST   http://{ready.rest}\n"
        f"  admin  http://{ready.admin}/tracks\nCtrl-C stops it.",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millrace gateway", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="gateway.yaml, or configmap:NAMESPACE/NAME[/KEY]")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--grpc-port", type=int, default=8500, metavar="N", help="default 8500; 0 takes a free one")
    parser.add_argument("--rest-port", type=int, default=8501, metavar="N", help="default 8501; 0 takes a free one")
    parser.add_argument(
        "--admin-port", type=int, default=8502, metavar="N", help="metrics, /readyz, /tracks; default 8502; 0 takes a free one"
    )
    parser.add_argument(
        "--spool", type=Path, metavar="DIR", help="where sampled exchanges wait for the recorder; without it nothing is logged"
    )
    parser.add_argument(
        "--predictions", type=Path, metavar="DIR", help="where the prediction log and labels lie; without it no recorder runs"
    )
    parser.add_argument(
        "--log-seconds", type=float, default=60.0, metavar="S", help="so long logged predictions wait for company (default 60)"
    )
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help='written once requests are taken: {"grpc", "rest", "pid", "admin"}')
    parser.add_argument(
        "--drain", type=float, default=0.0, metavar="S", help="seconds on SIGTERM before connections are closed (default 0)"
    )
    parser.add_argument("--grace", type=float, default=30.0, metavar="S", help="seconds that requests under way then get (default 30)")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        source=source_of(arguments.config),
        host=arguments.host,
        grpc_port=arguments.grpc_port,
        rest_port=arguments.rest_port,
        admin_port=arguments.admin_port,
        spool=arguments.spool,
        predictions=arguments.predictions,
        log_seconds=arguments.log_seconds,
        ready_file=arguments.ready_file,
        drain=arguments.drain,
        grace=arguments.grace,
    )
