"""Which ways there are from one release to another, and that everything that bears a release's number bears the same."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.cluster.objects import Name
from mlplatform.deploy.outlook import restarted
from mlplatform.environment import read_environment
from mlplatform.errors import ConfigError
from mlplatform.release import PlatformRelease, Standing, Way, arrived, read_release, require_pinned, under_way, way
from previous_release import ARCHIVE, VERSION

ROOT = Path(__file__).resolve().parents[3]
NOW, THEN = "2026-11-29T10:00:00Z", "2026-11-01T10:00:00Z"
RELEASES = {
    version: PlatformRelease(version=version, upgrades_from=first, back_to=last)
    for version, first, last in (
        ("0.2.0", "0.2.0", "0.2.0"),
        ("0.3.0", "0.2.0", "0.2.0"),
        ("0.3.1", "0.2.0", "0.2.0"),
        ("0.4.0", "0.3.0", "0.4.0"),  # one that changes data for good
    )
}


def at(version: str, **more: Any) -> Standing:
    return Standing(version=version, since=THEN, **({"back_to": RELEASES[version].back_to} if version in RELEASES else {}) | more)


def refused(ours: str, there: Standing, *, back: bool = False) -> str:
    with pytest.raises(ConfigError) as refusal:
        way(RELEASES[ours], there, back=back)
    return str(refusal.value)


def test_the_repository_is_one_release_from_its_charts_to_its_packages() -> None:
    ours = read_release(ROOT).version
    charts = {file.parent.name: yaml.safe_load(file.read_text()) for file in ROOT.glob("helm/*/Chart.yaml")}
    assert {(chart["version"], chart["appVersion"]) for chart in charts.values()} == {(ours, ours)}
    packages = [ROOT / "pyproject.toml", *ROOT.glob("*/pyproject.toml")]
    assert {tomllib.loads(file.read_text())["project"]["version"] for file in packages} == {ours}
    for file in ROOT.glob("platform/environments/*.yaml"):
        require_pinned(read_environment(file).versions.millrace, read_release(ROOT), str(file))


def test_pages_build_the_images_that_charts_name_by_default() -> None:
    named = {number for page in ROOT.glob("docs/*.md") for number in re.findall(r"REGISTRY/[a-z-]+:([0-9]\S*)", page.read_text())}
    assert named == {read_release(ROOT).version}


def test_the_release_from_which_one_upgrades_is_kept_so_that_the_upgrade_is_rehearsed() -> None:
    assert read_release(ROOT).upgrades_from == VERSION
    assert ARCHIVE.is_file()


def test_an_empty_cluster_takes_any_release_and_the_same_one_again() -> None:
    for ours in RELEASES.values():
        assert way(ours, Standing()) is Way.INSTALL
        assert way(ours, at(ours.version)) is Way.SAME


def test_a_release_upgrades_from_those_that_it_names_and_no_older_one() -> None:
    assert way(RELEASES["0.3.1"], at("0.2.0")) is way(RELEASES["0.4.0"], at("0.3.1")) is Way.UPGRADE
    said = refused("0.4.0", at("0.2.0"))
    assert "This cluster is at 0.2.0, and 0.4.0 upgrades from 0.3.0 on" in said
    assert "git checkout 0.3.0" in said


def test_an_older_repository_is_refused_unless_going_back_is_meant_and_possible() -> None:
    assert "To stay: git checkout 0.3.1" in refused("0.2.0", at("0.3.1"))
    assert way(RELEASES["0.2.0"], at("0.3.1"), back=True) is Way.BACK
    assert "the way back ends at 0.4.0" in refused("0.3.1", at("0.4.0"), back=True)
    assert "is not older" in refused("0.3.1", at("0.3.1"), back=True)


def test_what_has_begun_is_finished_or_taken_back_and_nothing_else_begins() -> None:
    middle = under_way(RELEASES["0.3.0"], at("0.2.0"), NOW)
    assert (middle.version, middle.next, middle.since) == ("0.2.0", "0.3.0", NOW)
    assert way(RELEASES["0.3.0"], middle) is Way.UPGRADE
    assert "under way from 0.2.0 to 0.3.0 since 2026-11-29T10:00:00Z, and this repository is 0.4.0" in refused("0.4.0", middle)
    assert "To go back on purpose" in refused("0.2.0", middle)
    assert way(RELEASES["0.2.0"], middle, back=True) is Way.BACK
    back = under_way(RELEASES["0.2.0"], middle, NOW)
    assert (back.version, back.next) == ("0.3.0", "0.2.0")
    assert way(RELEASES["0.2.0"], back) is Way.BACK, (
        "a way back that was interrupted is gone on with by the same command, or without --back"
    )
    assert way(RELEASES["0.2.0"], back, back=True) is Way.BACK
    assert way(RELEASES["0.3.0"], back) is Way.SAME, "or one stays after all"


def test_a_first_installation_that_was_interrupted_is_finished_by_its_own_release() -> None:
    begun = under_way(RELEASES["0.3.0"], Standing(), NOW)
    assert (begun.version, begun.next) == ("", "0.3.0")
    assert way(RELEASES["0.3.0"], begun) is Way.INSTALL
    assert "under way from nothing to 0.3.0" in refused("0.3.1", begun)


def test_steps_that_an_upgrade_left_alone_are_caught_up_with_before_the_next() -> None:
    there = arrived(RELEASES["0.3.0"], at("0.2.0"), NOW, ("kubeflow-pipelines",))
    assert str(there) == "0.3.0 since 2026-11-29T10:00:00Z, but for kubeflow-pipelines"
    assert way(RELEASES["0.3.0"], there) is Way.SAME
    assert "but for kubeflow-pipelines, which an upgrade left alone" in refused("0.4.0", there)


def test_a_deployment_of_the_same_release_notes_nothing_new() -> None:
    there = at("0.3.0")
    assert arrived(RELEASES["0.3.0"], there, NOW, ()) == there


@given(st.lists(st.tuples(st.sampled_from(sorted(RELEASES)), st.booleans(), st.booleans()), max_size=6))
def test_whatever_people_try_no_release_is_skipped_and_a_data_change_is_never_undone(tries: list[tuple[str, bool, bool]]) -> None:
    there, been = Standing(), [""]
    for version, back, ends in tries:
        ours = RELEASES[version]
        try:
            how = way(ours, there, back=back)
        except ConfigError:
            continue
        there = there if how is Way.SAME and not there.next else under_way(ours, there, NOW)
        if ends:
            there = arrived(ours, there, NOW, ())
            been.append(version)
    for earlier, later in itertools.pairwise(been):
        assert (earlier, later) not in {("0.2.0", "0.4.0"), ("0.4.0", "0.2.0"), ("0.4.0", "0.3.0"), ("0.4.0", "0.3.1")}


def test_an_environment_that_names_another_release_is_left_alone() -> None:
    require_pinned(None, RELEASES["0.3.0"], "mine.yaml")
    with pytest.raises(
        ConfigError, match=r"mine\.yaml: versions\.millrace: is 0\.2\.0, and this repository is 0\.3\.0.*git checkout 0\.2\.0"
    ):
        require_pinned("0.2.0", RELEASES["0.3.0"], "mine.yaml")


def test_a_release_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "platform").mkdir()
    (tmp_path / "platform" / "release.yaml").write_text("{version: 0.3.0, upgrades_from: 0.4.0, back_to: 0.2.0}")
    with pytest.raises(Exception, match=r"release\.yaml.*'upgrades_from' and 'back_to' are not after 'version'"):
        read_release(tmp_path)


def test_pods_start_anew_where_their_template_changes_and_nowhere_else() -> None:
    def deployment(image: str, replicas: int, label: str) -> Any:
        about = {"name": "server", "namespace": "n", "labels": {"helm.sh/chart": label}}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": about,
            "spec": {"replicas": replicas, "template": {"spec": image}},
        }

    name = Name(api="apps/v1", kind="Deployment", namespace="n", name="server")
    live = {name: deployment("a", 2, "x-1")}
    assert list(restarted(live, {name: deployment("a", 3, "x-2")})) == []
    assert list(restarted(live, {name: deployment("b", 2, "x-2")})) == ["Deployment n/server (2 pods)"]
