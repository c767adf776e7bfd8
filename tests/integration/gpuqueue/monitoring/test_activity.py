"""What a real Prometheus answers to our question about hours of GPU activity that we made up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

import aiohttp
import pytest

from gpuqueue.errors import ConfigError
from gpuqueue.prometheus import Prometheus, Source
from gpuqueue.usage import Holder, IdlePolicy, Sample, State, judge
from prometheus_server import PrometheusServer, Series

pytestmark = pytest.mark.prometheus

METRIC, UTIL = "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_GPU_UTIL"
NOON = 1_793_620_800.0
"""2 November 2026, 12:00 UTC."""
MINUTE, SCRAPE, WINDOW, STEP = 60.0, 30.0, 2700.0, 120


def gpu(
    pod: str,
    uuid: str,
    activity: Callable[[float], float | None],
    *,
    namespace: str = "fraud",
    name: str = METRIC,
    prefix: str = "exported_",
    **labels: str,
) -> Series:
    """Two hours of one GPU as dcgm-exporter tells them; `activity` of minutes before noon, None where it was not scraped."""
    moments = [NOON - 7200 + n * SCRAPE + 7 for n in range(240)]
    told = {at: activity((NOON - at) / MINUTE) for at in moments}
    exporter = {"namespace": "gpu-operator", "pod": "dcgm-exporter-x", "instance": "10.0.0.1:9400", "UUID": uuid, "gpu": "0"}
    held = {f"{prefix}namespace": namespace, f"{prefix}pod": pod, f"{prefix}container": "main"}
    return Series(name=name, labels={**exporter, **held, **labels}, values={at: value for at, value in told.items() if value is not None})


def always(value: float) -> Callable[[float], float]:
    return lambda _: value


HISTORY = [
    gpu("train", "GPU-1", always(0.9)),
    gpu("train", "GPU-2", always(0.1), namespace="ads"),
    gpu("notebook", "GPU-3", always(0.0)),
    gpu("burst", "GPU-4", lambda ago: 1.0 if 40 < ago < 40.6 else 0.0),
    gpu("pair", "GPU-5", always(0.0)),
    gpu("pair", "GPU-6", always(0.8), gpu="1"),
    gpu("hole", "GPU-7", lambda ago: None if 20 < ago < 25 else 0.0),
    gpu("half-seen", "GPU-8", always(0.0)),
    gpu("half-hole", "GPU-17", always(0.0)),
    gpu("half-hole", "GPU-18", lambda ago: None if 20 < ago < 25 else 0.0, gpu="1"),
    gpu("", "GPU-9", always(0.0), namespace=""),
    gpu("young", "GPU-10", lambda ago: 0.0 if ago < 10 else None),
    gpu("silent", "GPU-11", lambda ago: 0.0 if ago > 4 else None),
    gpu("slices", "GPU-12", always(0.2), GPU_I_ID="1", GPU_I_PROFILE="1g.10gb"),
    gpu("slices", "GPU-12", always(0.6), GPU_I_ID="2", GPU_I_PROFILE="1g.10gb"),
    gpu("moved", "GPU-13", lambda ago: 0.0 if ago > 15 else None, instance="10.0.0.1:9400"),
    gpu("moved", "GPU-13", lambda ago: 0.9 if ago <= 15 else None, instance="10.0.0.2:9400"),
    gpu("two-containers", "GPU-14", always(0.5), exported_container="a"),
    gpu("two-containers", "GPU-14", always(0.5), exported_container="b"),
    gpu("percent", "GPU-15", always(40.0), name=UTIL),
    gpu("honoured", "GPU-16", always(0.3), prefix=""),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), HISTORY) as server:
        yield Source(url=server.url, resolution=STEP)


def ask(source: Source, metric: str = "gr_engine_active", window: float = WINDOW, at: float = NOON) -> dict[tuple[str, str], Sample]:
    async def asked() -> dict[tuple[str, str], Sample]:
        async with aiohttp.ClientSession() as session:
            return await Prometheus(session, source).activity(metric, window, at)

    return asyncio.run(asked())


@pytest.fixture(scope="module")
def answer(source: Source) -> dict[tuple[str, str], Sample]:
    return ask(source)


Answer = dict[tuple[str, str], Sample]


def test_pods_of_one_name_are_told_apart_by_namespace(answer: Answer) -> None:
    assert answer["fraud", "train"].mean == pytest.approx(0.9)
    assert answer["ads", "train"].mean == pytest.approx(0.1)


def test_one_burst_shows_in_the_highest_and_hardly_in_the_mean(answer: Answer) -> None:
    assert answer["fraud", "burst"].highest == 1
    assert 0 < answer["fraud", "burst"].mean < 0.03


def test_two_gpus_of_a_pod_are_averaged_and_the_busier_counts(answer: Answer) -> None:
    pair = answer["fraud", "pair"]
    assert (pair.gpus, pair.mean, pair.highest, pair.share) == (2, pytest.approx(0.4), 0.8, 1)


def test_slices_of_one_gpu_are_instances_of_their_own(answer: Answer) -> None:
    slices = answer["fraud", "slices"]
    assert (slices.gpus, slices.mean, slices.highest) == (2, pytest.approx(0.4), 0.6)


def test_the_share_says_how_much_is_missing(answer: Answer) -> None:
    whole = {pod: answer["fraud", pod].share for pod in ("notebook", "hole", "young", "silent")}
    assert whole["notebook"] == 1
    assert 0.9 <= whole["hole"] < 1
    assert whole["young"] == pytest.approx(10 / 46, abs=0.05)
    assert 0.9 <= whole["silent"] < 1, "Prometheus answers with the last value for five minutes; that is no data"


def test_a_restarted_exporter_continues_the_history_of_a_gpu(answer: Answer) -> None:
    moved = answer["fraud", "moved"]
    assert (moved.gpus, moved.share) == (1, 1)
    assert moved.mean == pytest.approx(0.9 / 3, abs=0.03), "by time, not by series"


def test_a_gpu_that_two_containers_share_is_one(answer: Answer) -> None:
    assert (answer["fraud", "two-containers"].gpus, answer["fraud", "two-containers"].mean) == (1, pytest.approx(0.5))


def test_gpus_that_no_pod_holds_are_nobodys(answer: Answer) -> None:
    assert {namespace for namespace, _ in answer} == {"fraud", "ads"}
    assert "" not in {pod for _, pod in answer}


def test_percents_become_shares(source: Source) -> None:
    for metric in ("gpu_util", UTIL):
        assert ask(source, metric)["fraud", "percent"].mean == pytest.approx(0.4)


def test_a_scrape_that_honours_labels_has_other_names(source: Source) -> None:
    honoured = ask(replace(source, namespace_label="namespace", pod_label="pod"))
    assert honoured["fraud", "honoured"].mean == pytest.approx(0.3)
    assert ("fraud", "train") not in honoured, "that would be the exporter's own pod"


def test_where_no_scrape_is_every_pod_is_missing(source: Source) -> None:
    assert ask(source, at=NOON - 30 * 86400) == {}
    assert ask(source, metric="DCGM_FI_PROF_SM_OCCUPANCY") == {}


@pytest.mark.parametrize("at", [NOON, NOON + 1, NOON - 59.5, NOON - 100])
def test_full_data_is_full_whenever_it_is_asked(source: Source, at: float) -> None:
    assert ask(source, at=at)["fraud", "notebook"].share == 1


def test_a_metric_that_is_no_name_is_refused_before_it_is_asked(source: Source) -> None:
    with pytest.raises(ConfigError, match=r"spec\.idle\.metric: 'up or vector' is no name of a metric"):
        ask(source, metric="up or vector")


@pytest.mark.parametrize(
    ("pod", "gpus", "state"),
    [
        ("train", 1, State.BUSY),
        ("notebook", 1, State.IDLE),
        ("burst", 1, State.BUSY),
        ("pair", 2, State.BUSY),
        ("hole", 1, State.UNKNOWN),
        ("half-seen", 2, State.UNKNOWN),
        ("half-hole", 2, State.UNKNOWN),
        ("young", 1, State.UNKNOWN),
        ("silent", 1, State.UNKNOWN),
        ("moved", 1, State.BUSY),
        ("never-seen", 1, State.UNKNOWN),
    ],
)
def test_what_is_judged_from_the_answer(answer: Answer, pod: str, gpus: int, state: State) -> None:
    policy = IdlePolicy(metric="gr_engine_active", below=0.03, window=WINDOW, grace=900)
    who = Holder(uid=pod, namespace="fraud", name=pod, queue="fraud", lane="l4", grant=pod, gpus=gpus, since=NOON - 86400)
    assert judge(who, answer.get(("fraud", pod)), policy, NOON).state is state
