"""Never more GPUs open than the quota, in every way that a small world can go; and a broken protocol is caught."""

import pytest

from gpuqueue.queue import Lane, Queue
from gpuqueue.reconcile import SeenPod
from small_worlds import ABSENT, ENDED, GATED, GONE, IDLE, OPEN, Protocol, SmallWorlds, World

pytestmark = pytest.mark.timeout(900)


class OverAdmission(AssertionError):
    pass


def pods(*gpus: int, group: str | None = None) -> tuple[SeenPod, ...]:
    return tuple(
        SeenPod(
            uid=f"u{number}",
            namespace="team",
            name=f"p{number}",
            phase="gated",
            gpus=count,
            queue="q",
            lane="l4",
            since=float(number),
            group=group,
            size=len(gpus) if group else 1,
        )
        for number, count in enumerate(gpus)
    )


def worlds(quota: int, members: tuple[SeenPod, ...], protocol: Protocol | None = None) -> SmallWorlds:
    return SmallWorlds(Queue(name="q", lanes=(Lane(name="l4", quota=((0.0, quota),)),)), members, protocol)


def explored(small: SmallWorlds, quota: int, *, controllers: int = 2) -> int:
    """Explore all worlds; hold the quota in each, and that whatever waits in it gets its turn in the end."""
    settled: set[tuple[object, object]] = set()

    def check(world: World) -> None:
        opened = [pod for pod, history in zip(small.pods, world.pods, strict=True) if history[-1] == OPEN]
        if sum(pod.gpus for pod in opened) > quota:
            raise OverAdmission(world)
        entered = {pod.uid for grant in small.grants(world) for pod in grant.pods}
        assert entered >= {pod.uid for pod in opened}, "a gate was opened for a pod that the ledger does not name"
        if (world.pods, world.ledger) not in settled:
            settled.add((world.pods, world.ledger))
            end = small.settled(world)
            assert not small.grants(end)
            assert all(history[-1] in (ABSENT, ENDED, GONE) for history in end.pods) or _torn(small, end)

    start = World(pods=((ABSENT,),) * len(small.pods), controllers=(IDLE,) * controllers)
    return small.explore(start, check)


def _torn(small: SmallWorlds, world: World) -> bool:
    """Whether what waits is a group that is not complete: it waits rightly."""
    return small.pods[0].group is not None and any(history[-1] != GATED for history in world.pods)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quota", "members", "controllers"),
    [(1, pods(1, 1), 2), (2, pods(1, 1, group="g"), 2), (1, pods(1), 3)],
    ids=["two pods, two leaders", "a group", "one pod, three leaders"],
)
def test_open_gpus_never_exceed_the_quota_and_everybody_gets_a_turn(quota: int, members: tuple[SeenPod, ...], controllers: int) -> None:
    assert explored(worlds(quota, members), quota, controllers=controllers) > 1_000


@pytest.mark.parametrize(
    "broken",
    [Protocol(live_reads=False), Protocol(compare_and_swap=False)],
    ids=["absence in a view is believed", "no compare-and-swap"],
)
def test_a_broken_protocol_over_admits_and_the_checker_sees_it(broken: Protocol) -> None:
    with pytest.raises((OverAdmission, AssertionError)) as caught:
        explored(worlds(1, pods(1, 1), broken), 1)
    assert isinstance(caught.value, OverAdmission) or "does not name" in str(caught.value)
