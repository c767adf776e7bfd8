"""What every Beam pipeline of ours has in common: its options, how loud it is, and how its failures read.

`transform` and batch scoring build pipelines; which runner they get is said by `beam_options.py`, from project.yaml.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from mlpipelines.errors import ConfigError, MillraceError
from mlpipelines.project import Project
from mlpipelines.transformation.beam_options import beam_arguments

_BEAM_STEP = re.compile(r" \[while running '[^']*'\]")
_LOG_LEVELS = {
    "absl": logging.ERROR,
    "tensorflow": logging.ERROR,
    "apache_beam": logging.ERROR,
    # these tell of an exception before raising it
    "apache_beam.runners.common": logging.CRITICAL,
    "apache_beam.runners.worker": logging.CRITICAL,
}


class _Options(PipelineOptions):  # type: ignore[misc]  # Beam ships no types
    """Options that keep their views. Beam asks for one at every transform, and making one builds an argument parser."""

    def view_as(self, cls: type) -> Any:
        """The same view for the same class; all views share their values anyway."""
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


def pipeline_options(project: Project, work: str) -> PipelineOptions:
    """The options of a pipeline that does `work` for the project.

    Raises:
        ConfigError: an option is missing, or Beam knows none of that name.
    """
    options = _Options(beam_arguments(project.beam, job_name=f"millrace-{project.name}-{work}"))
    unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
    if unknown:
        raise ConfigError(
            f"beam.options.{min(unknown)}: Apache Beam knows no such option. Correct project.yaml, then `millrace run` again."
        )
    return options


@contextlib.contextmanager
def quiet_beam() -> Iterator[None]:
    """Beam and TensorFlow Transform say only what is wrong, and our own errors come out without the name of a Beam step."""
    before = {name: logging.getLogger(name).level for name in _LOG_LEVELS}
    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    except MillraceError as error:
        raise type(error)(without_step_name(str(error))) from error
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def without_step_name(text: str) -> str:
    """An error's text without "[while running …]", which Beam adds."""
    return _BEAM_STEP.sub("", text)
