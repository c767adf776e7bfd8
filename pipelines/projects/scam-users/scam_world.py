"""The invented marketplace behind the generated warehouse: how honest accounts behave, and how campaigns of scammers do.

Story: `generator` draws accounts and, for each of their days, events from these tables. Nothing is drawn from real accounts. The numbers are chosen so that
the task has the shape of a real one: a busy shop looks like a scammer in one table and not in the next, campaigns come and go, and a campaign that
nobody has seen before starts in the second half of the period.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What an account does on a day on which it is active. Counts are means of a Poisson distribution, shares are of those events."""

    active: float
    """Chance that it does anything at all on a day."""
    logins: float = 1.5
    failed: float = 0.04
    """Share of logins with a wrong password."""
    strange: float = 0.03
    """Share of logins from a device that is not the account's own."""
    messages: float = 2.0
    links: float = 0.04
    first: float = 0.25
    """Share of messages to somebody who was not written to before."""
    length: float = 60.0
    """Median letters of a message."""
    paid: float = 0.3
    received: float = 0.05
    """Payments out and in."""
    amount: float = 30.0
    """Median amount."""
    withdrawn: float = 0.03
    """Withdrawals to a bank account."""
    partners: int = 8
    """How many others it deals with, but for first contacts."""
    reported: float = 0.0004
    """Reports about it by others."""


HONEST: tuple[tuple[str, float, Behaviour], ...] = (
    ("buyer", 0.72, Behaviour(active=0.12)),
    ("chatter", 0.10, Behaviour(active=0.35, messages=9.0, first=0.10, length=90.0)),
    ("seller", 0.12, Behaviour(active=0.30, messages=5.0, first=0.55, received=0.9, withdrawn=0.20, links=0.08, partners=40, reported=0.004)),
    (
        "shop",
        0.06,
        Behaviour(
            active=0.7, logins=3.0, strange=0.10, messages=16.0, first=0.7, links=0.22, length=45.0, received=3.5, withdrawn=0.5, amount=45.0,
            partners=300, reported=0.012,
        ),
    ),
)  # fmt: skip
"""Name, share of accounts, behaviour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One way of cheating, and when it is about."""

    name: str
    share: float
    """Of all scammers."""
    begins: float
    ends: float
    """When its scammers start, as parts of the period."""
    takes_over: bool
    """Whether it uses honest people's accounts; else it makes new ones."""
    waits: tuple[int, int]
    """Days from a new account to its first scam, from and to."""
    lasts: int
    """Days of activity, unless the account is closed before."""
    found: float
    """Median days from the first scam to the verdict."""
    behaviour: Behaviour


CAMPAIGNS: tuple[Campaign, ...] = (
    Campaign(
        name="bait", share=0.34, begins=0.0, ends=1.0, takes_over=False, waits=(0, 3), lasts=10, found=5.0,
        behaviour=Behaviour(
            active=0.85, logins=3.0, strange=0.3, messages=15.0, links=0.4, first=0.85, length=45.0, received=0.25, withdrawn=0.15, reported=0.12
        ),
    ),
    Campaign(
        name="fake shop", share=0.26, begins=0.0, ends=0.65, takes_over=False, waits=(2, 14), lasts=18, found=9.0,
        behaviour=Behaviour(
            active=0.75, messages=7.0, first=0.75, links=0.15, received=2.6, amount=70.0, withdrawn=1.2, partners=200, strange=0.15, reported=0.10
        ),
    ),
    Campaign(
        name="takeover", share=0.22, begins=0.25, ends=1.0, takes_over=True, waits=(0, 0), lasts=6, found=4.0,
        behaviour=Behaviour(
            active=0.9, logins=4.0, failed=0.3, strange=0.75, messages=7.0, links=0.3, first=0.35, paid=1.4, amount=110.0, reported=0.12
        ),
    ),
    Campaign(
        name="slow", share=0.18, begins=0.5, ends=1.0, takes_over=False, waits=(15, 35), lasts=28, found=15.0,
        behaviour=Behaviour(
            active=0.8, messages=11.0, first=0.06, links=0.03, length=170.0, received=0.35, amount=260.0, withdrawn=0.3, partners=3, reported=0.03
        ),
    ),
)  # fmt: skip

NEVER_FOUND = 0.12
"""Share of scammers about whom nobody ever decides."""
WRONGLY_FOUND = 0.0005
"""Share of honest accounts that are judged to be scammers."""
COUNTRIES = ("GB", "IE", "FR", "DE", "NL", "ES", "PL", "SE")
MAIL = ("personal", "company", "disposable")


def field(name: str) -> Floats:
    """A property of every kind of behaviour, honest ones first: [kinds]."""
    return np.array(
        [getattr(each, name) for each in (*(kind for _, _, kind in HONEST), *(c.behaviour for c in CAMPAIGNS))], dtype=np.float64
    )
