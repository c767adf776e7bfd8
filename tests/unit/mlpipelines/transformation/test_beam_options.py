"""`project.beam` as Beam's arguments."""

from __future__ import annotations

from typing import Any

import pytest

from mlpipelines.errors import ConfigError
from mlpipelines.project import Beam
from mlpipelines.transformation.beam_options import beam_arguments

CLOUD = {"project": "acme", "region": "us-west1", "temp_location": "gs://acme/tmp"}


def arguments(runner: str, **options: Any) -> list[str]:
    return beam_arguments(Beam.model_validate({"runner": runner, "options": options}), job_name="millrace-p-transform")


def test_one_machine_uses_the_in_process_runner_by_its_full_name() -> None:
    assert arguments("direct") == ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]


@pytest.mark.parametrize(("runner", "name"), [("dataflow", "DataflowRunner"), ("flink", "FlinkRunner"), ("spark", "SparkRunner")])
def test_a_cluster_gets_its_runner_and_a_job_name(runner: str, name: str) -> None:
    assert arguments(runner, **CLOUD)[:2] == [f"--runner={name}", "--job_name=millrace-p-transform"]


def test_a_job_name_of_the_project_wins() -> None:
    assert "--job_name=mine" in arguments("flink", job_name="mine")
    assert "--job_name=millrace-p-transform" not in arguments("flink", job_name="mine")


def test_options_become_arguments_by_their_kind() -> None:
    given = arguments("direct", flag=True, off=False, nothing=None, experiments=["a", "b"], labels={"team": "x"}, number=3)
    assert given[1:] == ["--experiments=a", "--experiments=b", "--flag", '--labels={"team": "x"}', "--number=3"]


def test_dataflow_without_a_place_to_run_is_refused_with_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"needs beam\.options\.project, beam\.options\.region\. .*millrace run"):
        arguments("dataflow", temp_location="gs://acme/tmp")


def test_a_runner_named_among_the_options_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"beam\.runner"):
        beam_arguments(Beam(options={"runner": "PrismRunner"}), job_name="j")
