"""What an infra team writes in `platform/environments/NAME.yaml`: every decision about one platform, once.

The file is parsed here, once, at the edge. From the `Environment` follow the cloud's resources (`platform/gke/`), the plan of what goes into the
cluster (`mlplatform.plan`), the values of our charts, the teams' rights and the quotas of the GPU queue. Sections stand in `cloud`, `teams`
and `services`; what cannot be true at once is found by `contradictions`. Docstrings are the reference page and the JSON Schema (`make generate`).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mlplatform.cloud import Capacity, ComputeClass, Google, Name, NodePool
from mlplatform.contradictions import contradictions
from mlplatform.errors import ConfigError
from mlplatform.services import (
    Access,
    Database,
    Deployable,
    Images,
    Monitoring,
    Prices,
    Registry,
    Retraining,
    Secrets,
    ServedModel,
    Storage,
    Versions,
    deployables,
)
from mlplatform.teams import Team
from mlserving.settings_file import Strict

PAGE = "docs/reference/environment.md"
FOLDER = Path("platform/environments")
"""Where the repository keeps them."""
_TOGETHER = "together"
"""The kind of a complaint about fields that contradict each other."""


class Environment(Strict):
    """One platform."""

    name: Name
    """Also the file's name. What is deployed carries it, and `make destroy-platform` asks for it."""
    stage: Literal["development", "staging", "production"]
    """How serious it is: `staging` and `production` take no secrets from files, no public nodes and no placeholders; `production` only digests."""
    cloud: Google | None = None
    """Without it the cluster is there already: yours, or a laptop's."""
    node_pools: dict[Name, NodePool] = Field(min_length=1)
    """By name. Where there is no `cloud`, what the cluster has."""
    compute_classes: dict[Name, ComputeClass] = Field(default={})
    """By name; a pod asks for one by the node selector `cloud.google.com/compute-class`."""
    teams: dict[Name, Team] = Field(default={})
    storage: Storage
    database: Database
    secrets: Secrets
    access: Access = Access()
    registry: Registry = Registry()
    versions: Versions = Versions()
    monitoring: Monitoring = Monitoring()
    images: Images
    models: dict[Name, ServedModel] = Field(default={})
    """By the model's name."""
    retraining: Retraining = Retraining()
    prices: Prices = Prices()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if found := list(contradictions(self)):
            raise PydanticCustomError(_TOGETHER, "{text}", {"text": "\n  ".join(found)})
        return self

    def gpus(self) -> dict[str, int]:
        """How many GPUs of each type there are when every node is there."""
        found: Counter[str] = Counter()
        for pool in self.node_pools.values():
            if pool.gpu is not None:
                found[pool.gpu.type] += pool.most_gpus
        return dict(found)

    def deployables(self) -> list[Deployable]:
        """Of our images, those that it has a use for."""
        return deployables(gpus=bool(self.gpus()))

    def spot_pools(self) -> list[str]:
        """Pools whose nodes may be taken away."""
        return [name for name, pool in self.node_pools.items() if pool.capacity == Capacity.SPOT]

    def rolled_out_by_trigger(self, team: str = "") -> dict[str, ServedModel]:
        """By name, the models that triggers roll out: a team's, or all."""
        return {name: model for name, model in self.models.items() if model.rollout == "automatic" and (not team or model.team == team)}

    def team_of(self, namespace: str) -> str:
        """Whose namespace that is.

        Raises:
            KeyError: nobody's.
        """
        return next(name for name, team in self.teams.items() if namespace in team.namespaces)


def read_environment(file: Path) -> Environment:
    """The environment in a file.

    Raises:
        ConfigError: it cannot be read, is no YAML, or a field is missing, unknown, out of range or contradicts another. The text names the file,
            each field, and what to do.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        there = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{file} does not exist. Environments in {file.parent}: {there}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    environment = parse_environment(text, str(file))
    if environment.name != file.stem:
        raise ConfigError(f"{file}: name: is {environment.name!r}, and the file is called {file.stem!r}; make them one")
    return environment


def parse_environment(text: str, where: str) -> Environment:
    """The environment that `text` (YAML) states; `where` is named in errors. Raises as `read_environment` does."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must hold a mapping of fields. Every field: {PAGE}")
    try:
        return Environment.model_validate(values)
    except ValidationError as error:
        lines = "\n  ".join(_complaint(each) for each in error.errors())
        raise ConfigError(f"{where} cannot be used:\n  {lines}\nFix the file; {PAGE} lists every field.") from error


def _complaint(error: Any) -> str:
    if error["type"] == _TOGETHER:
        return str(error["msg"])
    return f"{'.'.join(map(str, error['loc'])) or '(the file)'}: {error['msg'].removeprefix('Value error, ')}"


def environment_schema() -> str:
    """The JSON Schema of an environment file, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Millrace environment", **Environment.model_json_schema()}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
