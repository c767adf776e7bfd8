"""What the program in platform/gke makes of the committed environments: worked out once for all tests, by a child that takes seconds."""

from __future__ import annotations

import atexit
import dataclasses
import fcntl
import json
import os
import tempfile
from functools import cache
from pathlib import Path

import yaml

from cloud_resources import ROOT, environments
from mlplatform.environment import FOLDER, Environment, parse_environment
from mlplatform.infrastructure import Resource, resources_of

ENVIRONMENTS = tuple(environments())
SMALL = "small"
"""A development environment that is otherwise where it may be: see `small`."""
EVERY = (*ENVIRONMENTS, SMALL)


def small() -> Environment:
    """gke-staging with databases, images and watching somewhere else, buckets in all of Europe, and an endpoint by address only."""
    values = yaml.safe_load((ROOT / FOLDER / "gke-staging.yaml").read_text())
    values |= {"name": SMALL, "stage": "development", "compute_classes": {}, "teams": {}, "models": {}}
    values |= {"database": {"kind": "in-cluster"}, "secrets": {"kind": "files", "folder": ".secrets-small"}, "access": {}}
    values |= {"monitoring": {"kind": "operator"}, "images": {"registry": "registry.example.com/millrace"}}
    values["storage"]["location"] = "EU"
    values["cloud"] |= {"deletion_protection": False, "maintenance": {"start": "23:30", "hours": 8, "days": ["WE", "TU"]}}
    values["cloud"]["network"] |= {"private_nodes": False, "dns_endpoint": False, "authorized": {"vpn": "10.99.0.0/16"}}
    return parse_environment(yaml.safe_dump(values), SMALL)


def environment(name: str) -> Environment:
    """By its name."""
    return small() if name == SMALL else environments()[name]


def made(name: str) -> tuple[Resource, ...]:
    """All resources of that environment."""
    return _all()[name]


@cache
def _all() -> dict[str, tuple[Resource, ...]]:
    """Parallel test processes of one run share a file; who comes after its writer has gone works it out anew."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    file = Path(tempfile.gettempdir()) / f"millrace-clouds-{run}.json"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            found = zip(EVERY, resources_of([environment(name) for name in EVERY]), strict=True)
            atexit.register(file.unlink, missing_ok=True)
            file.write_text(json.dumps({name: [dataclasses.asdict(one) for one in every] for name, every in found}))
        told = json.loads(file.read_text())
    return {name: tuple(Resource(**{**one, "after": tuple(one["after"])}) for one in every) for name, every in told.items()}


def one(name: str, kind: str, called: str) -> Resource:
    """The resource of that kind (`storage.Bucket`) and name."""
    return next(found for found in of_kind(name, kind) if found.name == called)


def of_kind(name: str, kind: str) -> list[Resource]:
    """All of that kind."""
    module, _, last = kind.partition(".")
    return [found for found in made(name) if found.type.startswith(f"gcp:{module}/") and found.type.endswith(f":{last}")]
