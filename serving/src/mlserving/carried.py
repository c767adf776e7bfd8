"""Settings that a version carries: written beside its graph when it is published, read by whoever watches or reviews what it answers.

`mlpipelines` fills them from `project.yaml`, so that whoever trains a model says once how it is to be treated. Who reads them stands beside the
servers, where no project's files are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mlserving.errors import ConfigError


class Strict(BaseModel):
    """Settings. A name that is not modelled is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


T = TypeVar("T", bound=Strict)


def parse(kind: type[T], text: str, where: str, page: str) -> T:
    """The settings that `text` (YAML or JSON) states. `where` is named in errors, and `page`, which explains every field.

    Raises:
        ConfigError: it is no YAML, or a field is unknown or out of range; the text names the field.
    """
    try:
        return kind.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no YAML: {error}") from error
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors())
        raise ConfigError(f"{where}: {complaints}. Every field: {page}") from error


def read(kind: type[T], path: Path, page: str) -> T:
    """The settings in a file. Raises as `parse` does, and ConfigError where the file cannot be read."""
    try:
        return parse(kind, path.read_text(encoding="utf-8"), str(path), page)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Name another file, or publish the version anew.") from error
