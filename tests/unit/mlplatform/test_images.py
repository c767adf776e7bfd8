"""What our images are made of, and what is written of them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import yaml

import binaries
from mlplatform.environment import parse_environment
from mlplatform.errors import ConfigError
from mlplatform.image_builder import Builder
from mlplatform.image_making import make
from mlplatform.images import RECIPES, Source, build_options, reference, with_digests
from mlplatform.plan import values_of_teams
from mlplatform.services import Deployable

ROOT = Path(__file__).resolve().parents[3]
COMMIT = Source(described="v0.1.0-12-gabcdef0", revision="ab" * 20, committed=1_760_000_000)
STAGING = ROOT / "platform" / "environments" / "gke-staging.yaml"
NEW = {Deployable.STEPS: f"sha256:{'c' * 64}", Deployable.TRIGGER: f"sha256:{'d' * 64}"}


@pytest.mark.parametrize("deployable", Deployable)
def test_every_image_has_a_dockerfile_and_pinned_libraries(deployable: Deployable) -> None:
    recipe = RECIPES[deployable]
    text = (ROOT / recipe.dockerfile).read_text()
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)", text, re.MULTILINE))
    for copied in re.findall(r"COPY (requirements/\S+)", text):
        file = copied.replace("${LIBRARIES}", recipe.arguments.get("LIBRARIES", defaults.get("LIBRARIES", "")))
        assert "--hash=sha256:" in (ROOT / file).read_text()
    assert "--require-hashes" in text
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)


@pytest.mark.parametrize("deployable", Deployable)
def test_the_programs_of_an_image_are_pinned_and_its_dockerfile_takes_them_from_where_they_are_put(deployable: Deployable) -> None:
    recipe = RECIPES[deployable]
    assert set(recipe.programs) <= binaries.PACKAGES.keys()
    folder = Path(recipe.dockerfile).parent / "programs" / str(deployable)
    copied = "COPY pipelines/programs/${LIBRARIES} /programs/" in (ROOT / recipe.dockerfile).read_text()
    assert (ROOT / folder / ".gitignore").is_file() is copied, "COPY needs the folder, and git keeps none that is empty"
    assert copied or not recipe.programs


def test_an_unknown_image_is_told_before_anything_else_is_looked_at() -> None:
    with pytest.raises(ConfigError, match=r"There is no image stepps\. Images: gpu-queue, "):
        make(argparse.Namespace(images=["stepps"], builder="nowhere", environment="nowhere", push=False))


def test_programs_that_cannot_be_had_stop_the_build_with_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "binaries.py").write_text("raise SystemExit(2)")
    with pytest.raises(ConfigError, match=r"helm and kubectl go into the image trigger .* make tools"):
        Builder(program="buildah", repository=tmp_path).bring_programs(RECIPES[Deployable.TRIGGER], "trigger")


def test_the_same_commit_is_built_under_the_same_name_and_says_where_it_comes_from() -> None:
    name = reference("registry.example.com/ml", Deployable.STEPS, COMMIT.tag)
    assert name == "registry.example.com/ml/steps:v0.1.0-12-gabcdef0"
    options = build_options(RECIPES[Deployable.STEPS], name, COMMIT, base="debian@sha256:1")
    assert options == [
        "--file=pipelines/Dockerfile",
        f"--tag={name}",
        f"--label=org.opencontainers.image.revision={'ab' * 20}",
        "--label=org.opencontainers.image.version=v0.1.0-12-gabcdef0",
        "--build-arg=LIBRARIES=steps",
        "--build-arg=BASE=debian@sha256:1",
    ]


@pytest.mark.parametrize(("described", "tag"), [("feature/x-1-gabc-dirty", "feature-x-1-gabc-dirty"), ("v" * 200, "v" * 128)])
def test_a_tag_holds_only_what_a_registry_takes(described: str, tag: str) -> None:
    assert Source(described=described, revision="", committed=0).tag == tag


def test_digests_are_written_and_nothing_else_in_the_file_is_touched() -> None:
    before = STAGING.read_text()
    after = with_digests(before, NEW, str(STAGING))
    assert {str(name): digest for name, digest in NEW.items()}.items() <= yaml.safe_load(after)["images"]["digests"].items()
    assert [line for line in after.splitlines() if not line.startswith("images:")] == [
        line for line in before.splitlines() if not line.startswith("images:")
    ]
    assert parse_environment(after, "gke-staging.yaml").images.digests.items() >= NEW.items()


def test_digests_that_are_there_stay_unless_they_are_written_anew() -> None:
    once = with_digests(STAGING.read_text(), NEW, "")
    twice = parse_environment(with_digests(once, {Deployable.STEPS: f"sha256:{'e' * 64}"}, ""), "gke-staging.yaml").images.digests
    assert twice[Deployable.STEPS].endswith("e" * 64)
    assert twice[Deployable.TRIGGER].endswith("d" * 64)


def test_a_file_without_images_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: images: there is no such section"):
        with_digests("name: mine\n", NEW, "mine.yaml")


def test_the_image_for_gpus_is_for_environments_that_have_any() -> None:
    values = yaml.safe_load(STAGING.read_text())
    assert Deployable.STEPS_GPU in parse_environment(yaml.safe_dump(values), "gke-staging.yaml").deployables()
    for name in ("l4-flex", "l4-spot"):
        del values["node_pools"][name]
    for team in values["teams"].values():
        del team["lanes"]
    del values["compute_classes"]
    without = parse_environment(yaml.safe_dump(values), "gke-staging.yaml").deployables()
    assert set(without) == set(Deployable) - {Deployable.STEPS_GPU}


def test_a_trigger_knows_the_image_for_gpus_once_it_has_a_digest() -> None:
    def given(text: str) -> object:
        return values_of_teams.retraining(parse_environment(text, "gke-staging.yaml"), "fraud")["kubeflow"].get("gpuImage")

    digest = f"sha256:{'9' * 64}"
    assert given(STAGING.read_text()) is None
    assert str(given(with_digests(STAGING.read_text(), {Deployable.STEPS_GPU: digest}, ""))).endswith(f"/steps-gpu@{digest}")
