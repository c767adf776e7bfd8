"""Years of certificates in a moment: whatever the order in which replicas look and write, nobody shows one that the API server does not trust."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuqueue.errors import ConfigError
from gpuqueue.webhook.rotation import HOUR, Authority, Lives, Own, Publish, Replace, Seen, Sign, signer, step, why_not_ready

DAY = 24 * HOUR
LIVES = Lives()


@dataclass
class World:
    """What the API server holds, each with a version, and what replicas show."""

    now: float = 0.0
    secret: tuple[int, tuple[Authority, ...]] = (0, ())
    bundle: tuple[int, frozenset[str]] = (0, frozenset())
    shown: dict[int, Own] = field(default_factory=dict)
    names: Iterator[int] = field(default_factory=itertools.count)
    bundles: list[frozenset[str]] = field(default_factory=list)

    def replica(self, number: int) -> Iterator[None]:
        """One refresh, which others may interrupt wherever it asks the API server."""
        while True:
            bundle_version, bundle = self.bundle
            yield
            secret_version, authorities = self.secret
            yield
            due = step(Seen(now=self.now, bundle=bundle, authorities=authorities, own=self.shown.get(number)), LIVES)
            if due is None:
                return
            if isinstance(due, Sign):
                self.shown[number] = Own(issuer=due.by.id, expires=min(self.now + LIVES.certificate, due.by.expires))
            elif isinstance(due, Publish) and bundle_version == self.bundle[0]:
                self.bundle = (bundle_version + 1, frozenset(each.id for each in authorities))
                self.bundles.append(self.bundle[1])
            elif isinstance(due, Replace) and secret_version == self.secret[0]:
                made = tuple(Authority(id=f"ca-{next(self.names)}", made=self.now, expires=expires) for expires in due.expiries)
                self.secret = (secret_version + 1, due.keep + made)
            yield

    def refresh(self, numbers: list[int], chance: random.Random) -> None:
        """Everybody looks, interrupting one another; after each step every certificate that is shown must be good."""
        looking = {number: self.replica(number) for number in numbers}
        while looking:
            number = chance.choice(sorted(looking))
            if next(looking[number], "done") == "done":
                del looking[number]
            self.all_is_well()

    def all_is_well(self) -> None:
        for number, own in self.shown.items():
            assert own.issuer in self.bundle[1], f"replica {number} shows what nobody trusts on day {self.now / DAY:.0f}"
            assert own.expires > self.now, f"replica {number} shows what has expired on day {self.now / DAY:.0f}"


@given(seed=st.integers(0, 2**32), most_days=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_no_replica_ever_shows_a_certificate_that_is_not_trusted(seed: int, most_days: int) -> None:
    world, chance = World(), random.Random(seed)
    while world.now < 1200 * DAY:
        world.refresh([number for number in range(3) if number == 0 or chance.random() < 0.9], chance)
        world.now += chance.uniform(0, most_days) * DAY
        world.refresh([0, 1, 2], chance)
        world.now += chance.uniform(0, most_days) * DAY / 2
    assert len(world.bundles) >= 5, "authorities were not replaced"
    for before, after in itertools.pairwise(world.bundles):
        assert before & after, "both authorities were replaced at once"


def authority(name: str, *, made: float = -100 * DAY, expires: float) -> Authority:
    return Authority(id=name, made=made, expires=expires)


def seen(*authorities: Authority, bundle: str = "", own: Own | None = None) -> Seen:
    return Seen(now=0.0, bundle=frozenset(bundle.split()), authorities=authorities, own=own)


def test_first_there_are_two_authorities_of_which_one_lives_half_as_long() -> None:
    assert step(seen(), LIVES) == Replace((), (LIVES.authority / 2, LIVES.authority))


def test_an_authority_that_is_near_its_end_is_replaced_and_the_other_stays() -> None:
    old, young = authority("old", expires=20 * DAY), authority("young", expires=200 * DAY)
    assert step(seen(old, young, bundle="old young"), LIVES) == Replace((young,), (LIVES.authority,))


def test_nothing_is_signed_before_the_api_server_knows_who_signs() -> None:
    two = authority("a", expires=200 * DAY), authority("b", expires=350 * DAY)
    assert step(seen(*two, bundle="a"), LIVES) == Publish()
    assert step(seen(*two, bundle="a b"), LIVES) == Sign(two[1])


def test_a_new_authority_does_not_sign_at_once() -> None:
    known, new = authority("known", expires=200 * DAY), authority("new", made=-DAY, expires=359 * DAY)
    assert signer([known, new], 0.0, LIVES) == known


def test_a_certificate_is_replaced_thirty_days_before_its_end() -> None:
    two = authority("a", expires=200 * DAY), authority("b", expires=350 * DAY)
    assert step(seen(*two, bundle="a b", own=Own(issuer="b", expires=31 * DAY)), LIVES) is None
    assert step(seen(*two, bundle="a b", own=Own(issuer="b", expires=29 * DAY)), LIVES) == Sign(two[1])


@pytest.mark.parametrize(
    ("own", "word"),
    [(None, "no certificate"), (Own(issuer="gone", expires=DAY), "does not trust"), (Own(issuer="a", expires=-1.0), "expired")],
)
def test_who_would_not_be_believed_is_not_ready_and_says_why(own: Own | None, word: str) -> None:
    assert word in why_not_ready(seen(bundle="a b", own=own))


def test_lives_that_could_leave_a_certificate_without_its_authority_are_refused() -> None:
    with pytest.raises(ConfigError, match="less than half of authorityLife"):
        Lives(authority=100 * DAY, certificate=60 * DAY, renew_before=10 * DAY)
