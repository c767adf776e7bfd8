"""The libraries of the steps' image for GPUs are those of the other one, but for TensorFlow and what it loads for GPUs."""

from __future__ import annotations

import re

import pytest

from gpu_requirements import CPU, FROM, TO, on_gpus, pins


def test_only_tensorflow_and_cudas_libraries_differ() -> None:
    cpu, gpu = set(pins(FROM.read_text())), set(pins(TO.read_text()))
    gone, come = cpu - gpu, gpu - cpu
    assert [pin.partition("==")[0] for pin in gone] == [CPU]
    version = re.search(r"==(\S+)", next(iter(gone)))
    assert version is not None
    assert {pin.partition("==")[0] for pin in come if not pin.startswith("nvidia-")} == {"tensorflow"}
    assert any(pin.startswith(f"tensorflow=={version[1]} ") for pin in come), "make export"
    assert {"nvidia-cudnn-cu12", "nvidia-cublas-cu12", "nvidia-cuda-nvcc-cu12"} <= {pin.partition("==")[0] for pin in come}


def test_every_pin_has_its_hashes() -> None:
    text = TO.read_text().replace("\\\n", "")
    assert all("--hash=sha256:" in line for line in text.splitlines() if line)


def test_requirements_without_tensorflow_are_refused() -> None:
    with pytest.raises(ValueError, match="pins no tensorflow-cpu"):
        on_gpus(["numpy==2.0.0"])
