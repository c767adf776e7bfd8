"""The YAML beside each project is what its source compiles to."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpipelines.batch_pipeline import compile_batch_pipeline
from mlpipelines.pipeline import compile_pipeline
from mlpipelines.project_file import load_project

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = sorted(file.parent for file in ROOT.glob("pipelines/projects/*/project.yaml"))


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_the_checked_in_pipeline_is_what_the_project_compiles_to(folder: Path, tmp_path: Path) -> None:
    compile_pipeline(load_project(folder), folder, tmp_path / "pipeline.yaml")
    checked_in = (folder / "pipeline.yaml").read_text()
    assert (tmp_path / "pipeline.yaml").read_text() == checked_in, f"run `make golden`, and read the diff of {folder}/pipeline.yaml as code"


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_the_checked_in_batch_pipeline_is_what_the_project_compiles_to(folder: Path, tmp_path: Path) -> None:
    compile_batch_pipeline(load_project(folder), tmp_path / "batch.yaml")
    checked_in = (folder / "batch.yaml").read_text()
    assert (tmp_path / "batch.yaml").read_text() == checked_in, f"run `make golden`, and read the diff of {folder}/batch.yaml as code"
