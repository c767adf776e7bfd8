"""What the controller can be told: one file, which the chart writes. Unknown names are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from gpuqueue.errors import ConfigError
from gpuqueue.prometheus import Source

_HINT = "What may stand there: helm show values gpu-queue"


class Prometheus(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Where GPU activity is asked for. Without an address nothing is known about use, and nobody is called idle."""

    url: str = ""
    token_file: str = ""
    namespace_label: str = "namespace"
    pod_label: str = "pod"


class Settings(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """All of it; each has a default that is right for most."""

    gpus: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}
    """GPUs for one unit of a resource, and of `claim`; 1 where nothing is said."""
    lease_seconds: Annotated[float, msgspec.Meta(ge=2)] = 10.0
    coalesce_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.03
    """How long a round waits for more news after the first."""
    tick_seconds: Annotated[float, msgspec.Meta(ge=0.1)] = 10.0
    """A round is due after this long without news: windows open, budgets turn over."""
    look_for_unmanaged_seconds: Annotated[float, msgspec.Meta(ge=1)] = 60.0
    parallel_gates: Annotated[int, msgspec.Meta(ge=1)] = 16
    tell_per_second: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    """Writes a second that tell people their place; those that grant are not limited."""
    tell_top: int = 20
    """So many of each line are told when they move; the others when they come, and on asking."""
    surface_in_argo: bool = True
    """Give the condition reason Unschedulable while a pod waits: that is what Argo shows."""
    events: bool = True
    prices: dict[str, float] = {}
    """For a GPU hour, by lane; `gpuq usage` reads them."""
    history_days: Annotated[int, msgspec.Meta(ge=1)] = 30
    prometheus: Prometheus = msgspec.field(default_factory=Prometheus)


def decode(text: bytes) -> Settings:
    """Settings from YAML; an empty text is the defaults.

    Raises:
        msgspec.MsgspecError: it is something else.
    """
    return msgspec.yaml.decode(text, type=Settings) if text.strip() else Settings()


def read(file: Path | None) -> Settings:
    """The settings in `file` (YAML); the defaults without one.

    Raises:
        ConfigError: it cannot be read, or holds something that means nothing.
    """
    if file is None:
        return Settings()
    try:
        settings = decode(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {error}. {_HINT}") from error
    try:
        source(settings)
    except ConfigError as error:
        raise ConfigError(f"{file}: prometheus: {error}. {_HINT}") from error
    return settings


def source(settings: Settings) -> Source | None:
    """Where GPU activity is asked for; None if nowhere.

    Raises:
        ConfigError: a label's name is none.
    """
    said = settings.prometheus
    token = Path(said.token_file) if said.token_file else None
    found = Source(url=said.url, namespace_label=said.namespace_label, pod_label=said.pod_label, token_file=token)
    return found if said.url else None
