"""The controller's settings file: what is wrong is named, with the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuqueue.controller.settings import Settings, read
from gpuqueue.errors import ConfigError


def written(folder: Path, text: str) -> Settings:
    file = folder / "settings.yaml"
    file.write_text(text)
    return read(file)


def test_without_a_file_everything_has_a_default() -> None:
    assert read(None) == Settings()


@pytest.mark.parametrize("text", ["{}", "# nothing\n{}"])
def test_an_empty_file_changes_nothing(tmp_path: Path, text: str) -> None:
    assert written(tmp_path, text) == Settings()


def test_what_is_said_counts(tmp_path: Path) -> None:
    found = written(tmp_path, "leaseSeconds: 5\ngpus: {nvidia.com/mig-1g.5gb: 0}\nprices: {l4: 0.71}\nprometheus: {url: http://p:9090}\n")
    assert (found.lease_seconds, found.gpus, found.prices) == (5.0, {"nvidia.com/mig-1g.5gb": 0}, {"l4": 0.71})
    assert (found.prometheus.url, found.prometheus.pod_label) == ("http://p:9090", "pod")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("leaseSecond: 5", "leaseSecond"),
        ("leaseSeconds: soon", r"\$\.leaseSeconds"),
        ("leaseSeconds: 1", r">= 2.*leaseSeconds"),
        ("tickSeconds: 0", r">= 0.1.*tickSeconds"),
        ("parallelGates: 0", r">= 1.*parallelGates"),
        ("tellPerSecond: -1", r">= 0.*tellPerSecond"),
        ("lookForUnmanagedSeconds: 0", r">= 1.*lookForUnmanagedSeconds"),
        ("historyDays: 0", r">= 1.*historyDays"),
        ("gpus: {nvidia.com/gpu: many}", r"\$\.gpus"),
        ("gpus: {nvidia.com/gpu: -1}", "gpus"),
        ("prometheus: {adress: x}", "adress"),
        ("prometheus: {podLabel: a-b}", "a-b"),
        ("[]", "Expected `object`"),
        ("a: b: c", "mapping values"),
    ],
)
def test_an_error_names_the_file_and_the_field_as_it_is_written_there(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        written(tmp_path, text)
    assert "settings.yaml" in str(caught.value)
    assert "helm show values gpu-queue" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml cannot be read"):
        read(tmp_path / "gone.yaml")
