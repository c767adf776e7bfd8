"""`millrace serve --tracks`: from arguments to a running supervisor."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlserving import store
from mlserving.errors import ConfigError, ServingError
from mlserving.gateway.settings import Track
from mlserving.rollout import actions
from mlserving.rollout.aliases import CHAMPION, Registry
from mlserving.rollout.document import Desired, Wanted
from mlserving.rollout.local import LocalDriver
from mlserving.rollout.plan import ALL, Phase
from mlserving.rollout.wiring import local_room
from mlserving.tracks.carried import carried_by
from mlserving.tracks.supervisor import Settings, Supervisor, missing
from mlserving.workspace import model_store, registry_uri, serving_folder, workspace_folder, write_whole

log = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> int:
    """Serve the models that `millrace serve --tracks MODEL…` names until a signal comes."""
    workspace = workspace_folder(arguments.workspace)
    names = tuple(arguments.models or store.models(model_store(workspace)))
    if not names:
        raise ConfigError(f"There is no model in {model_store(workspace)}. Train and publish one: millrace run PROJECT_DIR")
    for model in missing(names, serving_folder(workspace)):
        _begin(workspace, model)
    settings = Settings(
        models=names,
        folder=serving_folder(workspace),
        store=model_store(workspace),
        predictions=workspace / "predictions",
        log_seconds=arguments.log_seconds,
        host=arguments.host,
        grpc_port=arguments.grpc_port,
        rest_port=arguments.rest_port,
        admin_port=arguments.admin_port,
        grace=arguments.grace,
        threads=arguments.threads,
        implementation=arguments.implementation,
        ready_file=arguments.ready_file,
    )
    print(f"Loading {', '.join(names)} …", flush=True)
    return Supervisor(settings, _announcement(settings), _settling(workspace)).run()


def _begin(workspace: Path, model: str) -> None:
    """A model that was never served on tracks: its champion answers everything; without a registry, the newest version."""
    driver = LocalDriver(workspace)
    version = Registry(registry_uri(workspace)).aliases(model).get(CHAMPION) or driver.newest(model)
    if version is None:
        known = ", ".join(store.models(model_store(workspace))) or "nothing"
        raise ConfigError(
            f"There is no model {model!r} in {model_store(workspace)}. It has: {known}. Publish one: millrace run PROJECT_DIR"
        )
    wanted = Wanted(version=version, digest=driver.digest(model, version), weight=ALL)
    carried = carried_by(model_store(workspace) / model / str(version))
    driver.write(Desired(model=model, tracks={Track.STABLE: wanted}, sticky=carried.sticky, log=carried.log))


def _announcement(settings: Settings) -> Callable[[dict[str, Any]], None]:
    def announce(ports: dict[str, Any]) -> None:
        print(
            f"Serving {', '.join(settings.models)} on tracks\n  gRPC   {ports['grpc']}\n  REST   http://{ports['rest']}\n"
            f"  admin  http://{ports['admin']}/tracks\n"
            f"Try, in another terminal:\n  millrace rollout status {settings.models[0]}\nCtrl-C stops it.",
            flush=True,
        )
        if settings.ready_file:
            write_whole(settings.ready_file, json.dumps({**ports, "pid": os.getpid()}) + "\n")

    return announce


def _settling(workspace: Path) -> Callable[[Desired], None]:
    """Lets an old version go when its warm time is over."""

    def settle(desired: Desired) -> None:
        rollout = desired.rollout
        if rollout is None or rollout.phase is not Phase.PROMOTING or rollout.warm_until is None or time.time() < rollout.warm_until:
            return
        try:
            actions.let_go(local_room(workspace, who="millrace serve"), desired)
        except ServingError as error:  # somebody acted meanwhile, or the audit log is away: the next look tells
            log.warning("%s", error)

    return settle
