"""Where the trigger rolls out: what the file of `--rollouts` says, and what people are told where it says nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlpipelines.errors import ConfigError
from mlpipelines.triggers.places import FILE, nowhere, releases, tracks
from mlserving import errors as serving_errors
from mlserving.rollout.helm import HelmDriver
from mlserving.rollout.local import LocalDriver
from mlserving.rollout.observe import Prometheus

SAID = """
prometheus: http://prometheus.monitoring:9090
chart: oci://charts.example/model-serving
releases:
  cards: {release: cards-eu, namespace: serving}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "rollouts.yaml"
    found.write_text(SAID)
    return found


def test_a_model_is_rolled_out_in_the_release_that_serves_it_under_the_trigger_s_name(file: Path, tmp_path: Path) -> None:
    room = releases(tmp_path, "trigger", file)("cards")
    assert isinstance(room.driver, HelmDriver)
    assert (room.driver.release, room.driver.namespace, room.driver.chart) == ("cards-eu", "serving", "oci://charts.example/model-serving")
    assert isinstance(room.source, Prometheus)
    assert room.who == "trigger"


def test_where_no_chart_is_named_it_is_the_one_that_is_installed(file: Path, tmp_path: Path) -> None:
    file.write_text(SAID.replace("chart: oci://charts.example/model-serving", ""))
    driver = releases(tmp_path, "trigger", file)("cards").driver
    assert isinstance(driver, HelmDriver)
    assert driver.chart == ""


def sealed(folder: Path) -> Path:
    """A folder that nobody here may write to: root is kept out by a read-only mount only."""
    if os.geteuid() != 0:
        folder.mkdir()
        folder.chmod(0o500)
        return folder
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    found = next((Path(place) for _, place, _, options, *_ in mounts if "ro" in options.split(",") and Path(place).is_dir()), None)
    return found or pytest.skip("root may write everywhere, and nothing is mounted read-only")


def test_what_is_logged_is_remembered_in_the_workspace_unless_that_is_mounted_read_only(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_DATABASE", f"sqlite:///{tmp_path}/audit.db")
    for place, remembered in ((tmp_path / "workspace", 1), (sealed(tmp_path / "sealed") / "millrace", 0)):
        log = releases(place, "trigger", file)("cards").audit
        log.append("trigger", "rollout.start", "cards")
        assert len(log.anchors()) == remembered


def test_a_model_is_added_without_a_restart(file: Path, tmp_path: Path) -> None:
    room = releases(tmp_path, "trigger", file)
    with pytest.raises(ConfigError, match="names no release that serves 'scam', only: cards"):
        room("scam")
    file.write_text(SAID + "  scam: {release: scam}\n")
    driver = room("scam").driver
    assert isinstance(driver, HelmDriver)
    assert driver.namespace == "default"


@pytest.mark.parametrize(("text", "says"), [("releases: {}", "prometheus: Field required"), ("colour: red", "colour"), ("{", "is no YAML")])
def test_a_file_that_is_wrong_is_refused_at_the_start(file: Path, tmp_path: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(serving_errors.ConfigError, match=says):
        releases(tmp_path, "trigger", file)
    with pytest.raises(serving_errors.ConfigError, match=says):
        FILE.read(file)


def test_without_a_file_it_is_this_workspace_s_tracks_or_nowhere(tmp_path: Path) -> None:
    assert isinstance(tracks(tmp_path, "trigger")("cards").driver, LocalDriver)
    with pytest.raises(ConfigError, match="--rollouts FILE"):
        nowhere("cards")
