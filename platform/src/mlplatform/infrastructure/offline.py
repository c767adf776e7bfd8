"""What the program in `platform/gke/` would make, without Google: a child runs it under Pulumi's test mode and tells what it was asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlplatform.environment import Environment
from mlplatform.errors import ConfigError

PROGRAM = Path(__file__).resolve().parents[3] / "gke"
"""Of a checkout: images do not carry it."""
PATIENCE = 300
"""Seconds for a child that needs a few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One thing in Google Cloud, as the program asks for it."""

    type: str
    """As Pulumi says it: `gcp:storage/bucket:Bucket`."""
    name: str
    """Pulumi's, unique for the type."""
    inputs: Mapping[str, Any]
    """What the program decides. In angle brackets stands what only Google can say."""
    protected: bool = False
    """Pulumi refuses to delete it."""
    after: tuple[str, ...] = ()
    """Names of what is made before it."""


def resources(environment: Environment) -> tuple[Resource, ...]:
    """All of them, by type and name; none where the environment has no cloud. Raises as `resources_of` does."""
    return resources_of([environment])[0]


def resources_of(environments: Sequence[Environment]) -> list[tuple[Resource, ...]]:
    """The same for several at once, for the price of one: most of it is importing the provider's library.

    Raises:
        ConfigError: Pulumi's libraries or the program are not here.
    """
    if all(environment.cloud is None for environment in environments):
        return [() for _ in environments]
    if not (PROGRAM / "Pulumi.yaml").is_file():
        raise ConfigError(f"{PROGRAM} is not there: what a cloud is made of is told from a checkout of Millrace only. Next: git clone it")
    child = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "millrace_gke.offline"],
        cwd=PROGRAM,
        input="\n".join(environment.model_dump_json() for environment in environments if environment.cloud is not None),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if "No module named 'pulumi" in child.stderr:
        raise ConfigError("Pulumi's libraries are not installed. Next: make setup, or pip install 'mlplatform[gke]'")
    if child.returncode != 0:
        raise RuntimeError(f"{PROGRAM} failed for {', '.join(environment.name for environment in environments)}:\n{child.stderr}")
    told = iter(child.stdout.splitlines())
    return [_parsed(next(told)) if environment.cloud is not None else () for environment in environments]


def _parsed(line: str) -> tuple[Resource, ...]:
    return tuple(Resource(**{**one, "after": tuple(one["after"])}) for one in json.loads(line, parse_float=_number))


def _number(text: str) -> int | float:
    """Pulumi's protocol knows one kind of number, so 3 comes back as 3.0."""
    value = float(text)
    return int(value) if value.is_integer() else value


def listing(found: Iterable[Resource]) -> str:
    """For people: one block for each, what it is called and what was decided about it."""
    return "".join(f"{_head(one)}\n{_body(one)}" for one in found)


def _head(one: Resource) -> str:
    return f"{one.type.removeprefix('gcp:').partition('/')[0]}.{one.type.rpartition(':')[2]} {one.name}{'  [protected]' if one.protected else ''}"


def _body(one: Resource) -> str:
    if not one.inputs:
        return ""
    text = yaml.safe_dump(dict(one.inputs), sort_keys=True, default_flow_style=None, width=150, allow_unicode=True)
    return "".join(f"  {line}\n" for line in text.splitlines())
