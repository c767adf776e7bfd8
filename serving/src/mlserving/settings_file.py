"""A file of settings that a person writes: YAML in, a pydantic model out, or an error that names the file, the field and where all fields stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mlserving.errors import ConfigError

T = TypeVar("T", bound=BaseModel)


class Strict(BaseModel):
    """Settings. A name that is not modelled is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class SettingsFile(Generic[T]):
    """One kind of file: what it holds, the page that lists its fields, and what to do about one that cannot be read."""

    model: type[T]
    page: str
    remedy: str

    def parse(self, text: str, where: str) -> T:
        """The settings that `text` (YAML or JSON) states. `where` is named in errors.

        Raises:
            ConfigError: it is no YAML, or a field is missing, unknown or out of range; the text names the field.
        """
        try:
            return self.model.model_validate(yaml.safe_load(text) or {})
        except yaml.YAMLError as error:
            raise ConfigError(f"{where} is no YAML: {error}") from error
        except ValidationError as error:
            raise ConfigError(f"{where}: {complaints(error)}. Every field: {self.page}") from error

    def text(self, path: Path) -> str:
        """What a file says.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}. {self.remedy}") from error

    def read(self, path: Path) -> T:
        """The settings in a file. Raises as `text` and `parse` do."""
        return self.parse(self.text(path), str(path))


def complaints(error: ValidationError, *, whole: str = "the file", before: str = "") -> str:
    """What is wrong with which field. `whole` is what to call the place of a complaint about everything; `before` stands before each."""
    return "; ".join(f"{before}{'.'.join(map(str, each['loc'])) or whole}: {each['msg']}" for each in error.errors())
