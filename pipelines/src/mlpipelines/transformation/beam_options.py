"""Where `transform` runs: `project.beam` as the arguments that Apache Beam parses.

The same pipeline runs on one machine, on Dataflow, Flink or Spark; only these arguments differ. Locally the in-process
runner is named in full, because Beam's own "DirectRunner" may choose Prism, a program that it downloads.
Pure: what is asked for, as text. Whether Beam knows an option's name is checked in `steps/transform.py`.
"""

from __future__ import annotations

import json
from typing import Any

from mlpipelines.errors import ConfigError
from mlpipelines.project import Beam

_RUNNERS = {
    "direct": "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "dataflow": "DataflowRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
}
_NEEDED = {"dataflow": ("project", "region", "temp_location")}


def beam_arguments(beam: Beam, job_name: str) -> list[str]:
    """Command-line arguments for `apache_beam.options.pipeline_options.PipelineOptions`.

    `true` becomes a bare flag, `false` and `null` leave the option out, a list repeats it, a mapping becomes JSON.

    Raises:
        ConfigError: an option is missing that the runner cannot do without, or the runner is named twice.
    """
    if "runner" in beam.options:
        raise ConfigError("beam.options.runner: name the runner in beam.runner of project.yaml, then `millrace run` again.")
    missing = [f"beam.options.{name}" for name in _NEEDED.get(beam.runner, ()) if not beam.options.get(name)]
    if missing:
        raise ConfigError(f"The runner {beam.runner!r} needs {', '.join(missing)}. Add them to project.yaml, then `millrace run` again.")
    arguments = [f"--runner={_RUNNERS[beam.runner]}"]
    if beam.runner != "direct":
        arguments += [] if "job_name" in beam.options else [f"--job_name={job_name}"]
    return arguments + [argument for name, value in sorted(beam.options.items()) for argument in _arguments(name, value)]


def _arguments(name: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    if isinstance(value, dict):
        return [f"--{name}={json.dumps(value, sort_keys=True)}"]
    if isinstance(value, list):
        return [argument for item in value for argument in _arguments(name, item)]
    return [f"--{name}={value}"]
