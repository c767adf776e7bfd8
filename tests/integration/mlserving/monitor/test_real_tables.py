"""Public tables, whose random halves are one distribution: drift stays quiet there, and speaks where something was changed.

A part of `benchmarks/drift_false_alarms.py`, whose world and whose changes these are; that measures every table at every size.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mlserving.monitor.settings import MonitorSettings

pytestmark = [pytest.mark.data, pytest.mark.slow]

TRIALS = 40
SETTINGS = MonitorSettings()


def _benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[4] / "benchmarks" / "drift_false_alarms.py"
    spec = importlib.util.spec_from_file_location("drift_false_alarms", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BENCHMARK = _benchmark()


@pytest.fixture(scope="module", params=BENCHMARK.WORLDS, ids=lambda world: world.name)
def halved(request: pytest.FixtureRequest) -> object:
    world = request.param
    if not (BENCHMARK.DATA / world.file).is_file():
        pytest.skip(f"{BENCHMARK.DATA / world.file} is not there: name the folder of public tables with MILLRACE_DATA")
    before, after = BENCHMARK.halves(world.read(), seed=100)
    return world, BENCHMARK.described(before), after


def test_the_other_half_is_quiet_in_at_least_95_of_100_trials(halved: tuple[object, object, object]) -> None:
    _, training, after = halved
    for rows in (200, 1000, 5000):
        trials = TRIALS if rows < 5000 else TRIALS // 4
        samples = [BENCHMARK.sampled(after, np.random.default_rng([rows, trial]), rows) for trial in range(trials)]
        loud = [said for sample in samples if (said := BENCHMARK.alarms(BENCHMARK.measured(training, sample, SETTINGS)))]
        assert len(loud) <= 0.05 * trials, loud


def test_what_was_changed_is_what_alarms(halved: tuple[object, object, object]) -> None:
    world, training, after = halved
    for injected in world.injected:  # type: ignore[attr-defined]
        if "swapped" in injected.told:  # as many rows of one as of the other: no distance sees that
            continue
        asked = injected.change(after, np.random.default_rng(7), 5000)
        assert injected.column in BENCHMARK.alarms(BENCHMARK.measured(training, asked, SETTINGS)), injected.told
