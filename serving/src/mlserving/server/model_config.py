"""Which models to serve: what a `model_config_list` file says, or, without one, every model in the store.

The file is TensorFlow Serving's (a text protocol buffer), so one file serves both servers. It is read again when it changes; a
file that cannot be read leaves in force what was read before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from mlserving import store
from mlserving.errors import ConfigError
from mlserving.server.versions import Every, Latest, Policy, ServedModel, Specific

_LABEL = re.compile(r"[A-Za-z0-9_]+")

Wanted = Callable[[], list[ServedModel]]
"""Called each second: the models to serve now. Raises ConfigError where that cannot be told."""


def everything_in(model_store: Path, only: Sequence[str] = ()) -> Wanted:
    """The newest version of every model in the store, or of `only` those."""

    def wanted() -> list[ServedModel]:
        return [ServedModel(name=name, base_path=model_store / name) for name in only or store.models(model_store)]

    return wanted


def from_file(path: Path) -> Wanted:
    """What the file says now."""

    def wanted() -> list[ServedModel]:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The model configuration {path} cannot be read: {error}. Check --model-config.") from error
        return parse(text, str(path))

    return wanted


def parse(text: str, where: str) -> list[ServedModel]:
    """The models of a `model_config_list` in text form. `where` is named in errors.

    Raises:
        ConfigError: the text is no ModelServerConfig, or it asks for something that cannot be.
    """
    from tensorflow_serving.config import model_server_config_pb2

    try:
        message = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise ConfigError(f"{where} is no model_config_list: {error}") from error
    return from_message(message, where)


def from_message(message: Any, where: str) -> list[ServedModel]:
    """The models of a ModelServerConfig message, as HandleReloadConfigRequest brings it. Raises as `parse` does."""
    if not message.HasField("model_config_list"):
        raise ConfigError(f"{where} has no model_config_list. Begin with: model_config_list {{ config {{ name: … base_path: … }} }}")
    models = [_served(config, where) for config in message.model_config_list.config]
    names = [model.name for model in models]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise ConfigError(f"{where} has more than one config named {', '.join(doubles)}.")
    return models


def _served(config: Any, where: str) -> ServedModel:
    if not config.name or not config.base_path:
        raise ConfigError(
            f"{where}: each config needs a name and a base_path; this one has name {config.name!r}, base_path {config.base_path!r}."
        )
    if config.model_platform not in {"", "tensorflow"}:
        raise ConfigError(f"{where}: {config.name}: model_platform {config.model_platform!r} is not served here; write 'tensorflow'.")
    bad = [label for label in config.version_labels if not _LABEL.fullmatch(label)]
    if bad:
        raise ConfigError(f"{where}: {config.name}: version label {bad[0]!r} may only have letters, digits and '_'.")
    return ServedModel(
        name=config.name,
        base_path=Path(config.base_path.removeprefix("file://")),
        policy=_policy(config, where),
        labels=dict(config.version_labels),
    )


def _policy(config: Any, where: str) -> Policy:
    policy = config.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return Every()
        case "specific":
            if not policy.specific.versions:
                raise ConfigError(f"{where}: {config.name}: model_version_policy specific names no versions.")
            return Specific(frozenset(policy.specific.versions))
        case _:
            return Latest(policy.latest.num_versions or 1)
