"""What builds and checks us elsewhere calls what people type, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mlplatform.environment import read_environment

ROOT = Path(__file__).resolve().parents[3]
DEFINITIONS = [ROOT / "cloudbuild.yaml", *sorted((ROOT / ".github" / "workflows").glob("*.yaml"))]
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("file", DEFINITIONS, ids=lambda file: file.name)
def test_a_definition_is_yaml_and_calls_make_and_scripts_that_are_there(file: Path) -> None:
    text = file.read_text()
    assert yaml.safe_load(text)
    called = re.findall(r"make ([a-z]+(?:-[a-z]+)*)((?: [A-Z_]+=\S+)+)", text)
    assert called or ".ci/run" in text
    for target, settings in called:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"make {target}"
        assert all(f"$({name})" in MAKEFILE for name in re.findall(r"([A-Z_]+)=", settings)), settings


@pytest.mark.parametrize("name", ["gke-staging", "gke-prod"])
def test_the_workflow_finds_the_registry_to_sign_in_to(name: str) -> None:
    pattern = r"^images: *\{registry: ([^/]*).*"  # that of the workflow's sed
    assert pattern.replace("([^/]*)", r"\([^/]*\)").replace(r"\{", "{") in (ROOT / ".github/workflows/images.yaml").read_text()
    file = ROOT / "platform" / "environments" / f"{name}.yaml"
    found = re.search(pattern, file.read_text(), re.MULTILINE)
    assert found is not None
    assert read_environment(file).images.registry.startswith(found[1] + "/")
