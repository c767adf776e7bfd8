"""`millrace trigger`: `serve` and `fire`."""

from __future__ import annotations

import argparse
import json
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpipelines.commands import options, screen
from mlpipelines.errors import ConfigError, Rejected, Unavailable

if TYPE_CHECKING:
    from mlpipelines.triggers.service import Machine, Tls

_EXAMPLES = """  millrace trigger serve --projects pipelines/projects --token-file token
  millrace trigger serve --projects projects --token-file token --kubeflow http://ml-pipeline.kubeflow:8888 --image REGISTRY/steps@sha256:…
  millrace trigger fire pipelines/projects/transactions --because "the fraud team changed its labels"
  millrace trigger fire my-project --because "month end" --once 2026-11       however often it is typed, one run"""
_DESCRIPTION = """Start trainings for a reason, each reason once.

`serve` takes what Alertmanager posts to /alerts, looks for new rows, new code and reviewers who disagree, follows the schedules of the projects,
starts the runs, and rolls out what they bring where a project asks for it (retraining.rollout). `fire` is a reason that a person gives: cooldown and budget do not hold it back, a freeze and a run that goes on do.
Every decision is written down before anything is done: millrace why MODEL."""


def main(argv: Sequence[str]) -> int:
    """Serve, or fire once."""
    parser = options.make_parser("trigger", _DESCRIPTION, _EXAMPLES)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="serve|fire")
    _serve_arguments(verbs.add_parser("serve", help="take alerts, follow schedules, start runs"))
    _fire_arguments(verbs.add_parser("fire", help="start a training now"))
    arguments = parser.parse_args(argv)
    return _serve(arguments) if arguments.verb == "serve" else _fire(arguments)


def _place_arguments(parser: argparse.ArgumentParser) -> None:
    """Where runs go."""
    options.add_workspace(parser)
    parser.add_argument("--kubeflow", metavar="URL", help="start runs on this Kubeflow Pipelines (default: on this machine)")
    parser.add_argument("--image", metavar="IMAGE", help="with --kubeflow: the steps image, by digest")
    parser.add_argument("--gpu-image", default="", metavar="IMAGE", help="the one for GPUs, by digest, where a project's step asks for any")
    parser.add_argument("--notify", type=Path, metavar="FILE", help="YAML: the ways on which people are told (docs/retraining.md)")
    parser.add_argument("--namespace", help="with --kubeflow: the team's namespace, on a multi-user installation")
    options.add_registry(parser)


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--projects", required=True, type=Path, metavar="DIR", help="a folder of project folders, or one of them")
    parser.add_argument("--token-file", required=True, type=Path, metavar="FILE", help="bearer tokens that may post, one a line")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=9096, metavar="N", help="default 9096; 0 takes a free one")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="speak TLS with this certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument(
        "--client-ca", type=Path, metavar="FILE", help="with --tls-cert: let in only clients with a certificate of this authority"
    )
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help='written once alerts are taken: {"address", "pid"}')
    parser.add_argument("--every", type=float, default=10.0, metavar="S", help="seconds between two looks (default 10)")
    parser.add_argument(
        "--rollouts", type=Path, metavar="FILE", help="YAML: the helm releases that serve the models (default: the tracks of the workspace)"
    )
    parser.add_argument("--as", dest="who", metavar="NAME", help="who acts in rollouts (default: MILLRACE_USER, else `trigger`)")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="trainings that this machine carries at a time (default 1)")
    _place_arguments(parser)


def _fire_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("project_dir", type=Path, metavar="PROJECT_DIR", help="the folder with project.yaml")
    parser.add_argument("--because", required=True, metavar="TEXT", help="why; the run, its report and the model version say it")
    parser.add_argument("--once", default="", metavar="TEXT", help="a name for this occurrence: the same one starts one run")
    _place_arguments(parser)
    options.add_json(parser)


def _serve(arguments: argparse.Namespace) -> int:
    from mlpipelines.triggers.service import Service, uvicorn_server
    from mlpipelines.triggers.tokens import Tokens
    from mlserving.json_log import log_json

    log_json()
    tokens = Tokens(arguments.token_file)
    machine = _machine(arguments, arguments.projects, arguments.at_once, rollouts=arguments.rollouts, who=arguments.who or "")
    service = Service(machine, tokens, every=arguments.every)
    told = [lambda server: _say_ready(server, arguments.ready_file)]
    server = uvicorn_server(service.app, arguments.host, arguments.port, told, _tls(arguments))
    service.run(server)
    return 0


def _tls(arguments: argparse.Namespace) -> Tls | None:
    from mlpipelines.triggers.service import Tls

    if arguments.tls_cert is None and (arguments.tls_key or arguments.client_ca):
        raise ConfigError("--tls-key and --client-ca go with --tls-cert.")
    if arguments.tls_cert is None:
        return None
    if arguments.tls_key is None:
        raise ConfigError("--tls-cert needs --tls-key: the certificate's key.")
    missing = [file for file in (arguments.tls_cert, arguments.tls_key, arguments.client_ca) if file is not None and not file.is_file()]
    if missing:
        raise ConfigError(f"{missing[0]} is not there. Check --tls-cert, --tls-key and --client-ca.")
    return Tls(certificate=arguments.tls_cert, key=arguments.tls_key, clients=arguments.client_ca)


def _say_ready(server: Any, ready_file: Path | None) -> None:
    if not server.started:  # uvicorn has said why, and ends
        return
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    if ready_file is not None:
        from mlserving.workspace import write_whole

        write_whole(ready_file, json.dumps({"address": f"{host}:{port}", "pid": os.getpid()}) + "\n")
    print(f"The trigger takes alerts at http://{host}:{port}/alerts\nCtrl-C stops it; trainings that it started go on.", flush=True)


def _fire(arguments: argparse.Namespace) -> int:
    from mlpipelines.project_file import load_project
    from mlpipelines.triggers.decide import Cause, Signal
    from mlserving.json_log import log_json
    from mlserving.rollout.wiring import whoever

    log_json("CRITICAL")  # what a person must know is in the error or in the answer
    machine = _machine(arguments, arguments.project_dir, None)
    model, now = load_project(arguments.project_dir).model_name, machine.clock()
    machine.known.look_at(model)
    cause = Cause(
        model=model,
        signal=Signal.BY_HAND,
        fingerprint=arguments.once or uuid.uuid4().hex,
        starts_at=0.0 if arguments.once else now,
        summary=f"{arguments.because} ({whoever()})",
    )
    decision = machine.settle(cause)
    if decision.starts:
        machine.starter.turn()
        machine.tell()
    known = next((run for run in machine.ledger.runs(model) if run.name == cause.run_name), None)
    told = {"model": model, "started": decision.starts, "reason": decision.reason, "text": decision.text, "run": known and known.name}
    if arguments.json:
        screen.print_json({**told, "address": known and known.address, "trouble": known and known.trouble})
    if not decision.starts:
        raise Rejected(decision.text)
    if known is not None and known.trouble:
        raise Unavailable(f"{known.name} is wanted, and could not be started yet: {known.trouble} A trigger that serves tries again.")
    if not arguments.json and known is not None:
        screen.console().print(f"{decision.text}\n{known.address}", soft_wrap=True)
    return 0


def _machine(
    arguments: argparse.Namespace, projects_dir: Path, at_once: int | None, *, rollouts: Path | None = None, who: str = ""
) -> Machine:
    """All parts, connected. On a cluster, Kubeflow itself knows how much may go on at once."""
    from mlpipelines.triggers.channels import FILE, Channels
    from mlpipelines.triggers.facts import Known, Sources, count_labels
    from mlpipelines.triggers.ledger import Ledger
    from mlpipelines.triggers.metrics import Metrics
    from mlpipelines.triggers.outbox import Outbox
    from mlpipelines.triggers.projects import Projects
    from mlpipelines.triggers.reviewers import Reviewers
    from mlpipelines.triggers.roller import CLAIM_SECONDS, Roller, World
    from mlpipelines.triggers.rollouts import Rollouts
    from mlpipelines.triggers.service import Machine
    from mlpipelines.triggers.starter import Starter
    from mlpipelines.triggers.telling import Telling
    from mlpipelines.triggers.timetable import Timetable
    from mlpipelines.triggers.watch import Watch
    from mlserving.database import address, open_database

    workspace, projects = options.workspace_of(arguments), Projects(projects_dir)
    runs = _runs(arguments, projects)
    where = address(workspace.root)
    database = open_database(where)
    ledger, metrics, outbox = Ledger(database), Metrics(), Outbox(database)
    channels = FILE.read(arguments.notify) if arguments.notify else Channels()
    telling = [Telling(outbox, channels, projects, ledger)] if arguments.notify else []
    world = World(
        projects=projects,
        room=_rooms(arguments, workspace.root, rollouts, who or os.environ.get("MILLRACE_USER") or "trigger"),
        frozen=lambda model: ledger.frozen(model, time.time()),
        reason_of=ledger.reason_of,
    )
    wanted = Rollouts(database)
    roller = Roller(
        wanted,
        world,
        ears=[metrics.rollout_ear(), *(each.rollout_ear() for each in telling)],
        claim_seconds=max(CLAIM_SECONDS, 3 * getattr(arguments, "every", 0.0)),
    )
    ears = [metrics.ear(), roller.ear(), *(each.ear() for each in telling)]
    sources = Sources(
        projects=projects,
        runs=runs,
        ledger=ledger,
        labels=lambda model, since, most: count_labels(workspace.predictions, model, since, most),
        reviews=Reviewers(projects, where).right_since,
    )
    return Machine(
        ledger=ledger,
        known=Known(sources),
        watch=Watch(lambda: runs.code),
        timetable=Timetable(database),
        starter=Starter(ledger, runs, most_open=None if arguments.kubeflow else at_once, ears=ears),
        roller=roller,
        rollouts=wanted,
        outbox=outbox,
        send=channels.send,
        metrics=metrics,
    )


def _rooms(arguments: argparse.Namespace, workspace: Path, file: Path | None, who: str) -> Any:
    """What rollouts are worked on with."""
    from mlpipelines.triggers import places

    if file is not None:
        return places.releases(workspace, who, file)
    return places.tracks(workspace, who) if arguments.kubeflow is None else places.nowhere


def _runs(arguments: argparse.Namespace, projects: Any) -> Any:
    if arguments.kubeflow is None:
        from mlpipelines.triggers.local_runs import LocalRuns

        return LocalRuns(options.workspace_of(arguments), projects)
    if not arguments.image:
        raise ConfigError("--kubeflow needs --image: the steps image, by digest (REGISTRY/steps@sha256:…).")
    from mlpipelines.kubeflow import Kubeflow
    from mlpipelines.pipeline import require_digest
    from mlpipelines.triggers.kubeflow_runs import KubeflowRuns

    require_digest(arguments.image)
    if arguments.gpu_image:
        require_digest(arguments.gpu_image, "--gpu-image")
    kubeflow, workspace = Kubeflow(arguments.kubeflow, arguments.namespace), options.workspace_of(arguments)
    return KubeflowRuns(kubeflow, projects, arguments.image, workspace, gpu_image=arguments.gpu_image, registry=arguments.registry)
