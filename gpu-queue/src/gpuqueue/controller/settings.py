"""What the controller can be told: one file, which the chart writes. Unknown names are refused."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gpuqueue.errors import ConfigError


class Prometheus(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Where GPU activity is asked for. Without an address nothing is known about use, and nobody is called idle."""

    url: str = ""
    token_file: str = ""
    namespace_label: str = "namespace"
    pod_label: str = "pod"


class Settings(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """All of it; each has a default that is right for most."""

    gpus: dict[str, int] = {}
    """GPUs for one unit of a resource, and of `claim`; 1 where nothing is said."""
    lease_seconds: float = 10.0
    coalesce_seconds: float = 0.03
    """How long a round waits for more news after the first."""
    tick_seconds: float = 10.0
    """A round is due after this long without news: windows open, budgets turn over."""
    look_for_unmanaged_seconds: float = 60.0
    parallel_gates: int = 16
    tell_per_second: float = 5.0
    """Writes a second that tell people their place; those that grant are not limited."""
    tell_top: int = 20
    """So many of each line are told when they move; the others when they come, and on asking."""
    surface_in_argo: bool = True
    """Give the condition reason Unschedulable while a pod waits: that is what Argo shows."""
    events: bool = True
    prices: dict[str, float] = {}
    """For a GPU hour, by lane."""
    history_days: int = 30
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
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{file}: {error}. What may stand there: helm show values gpu-queue") from error
    for name, least in (
        ("lease_seconds", 2.0),
        ("coalesce_seconds", 0.0),
        ("tick_seconds", 0.1),
        ("parallel_gates", 1),
        ("tell_per_second", 0.0),
    ):
        if getattr(settings, name) < least:
            raise ConfigError(f"{file}: {name} must be at least {least:g}. What may stand there: helm show values gpu-queue")
    return settings
