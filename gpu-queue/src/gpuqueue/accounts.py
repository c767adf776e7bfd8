"""What GPUs cost: GPU-seconds that teams held, those of them that were used, and the money.

Pure, like `gpuqueue.usage`, whose verdicts it adds up. What nobody knows is a figure of its own, neither used nor idle; a lane
without a price is told and not counted as free.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpuqueue.usage import LaneKey, Use

_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """GPU-seconds of a queue's lane."""

    held: float = 0.0
    used: float = 0.0
    """Times activity, where that is known."""
    unknown: float = 0.0

    @property
    def idle(self) -> float:
        """Held, known, and not used."""
        return max(0.0, self.held - self.used - self.unknown)

    def __add__(self, other: Account) -> Account:
        return Account(held=self.held + other.held, used=self.used + other.used, unknown=self.unknown + other.unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a team's GPUs cost, in the money of the price table."""

    account: Account
    cost: float
    """Of what was held: a GPU costs the same whether it is used or not."""
    idle_cost: float
    """Of that, what is known to have been idle."""
    unpriced: float
    """GPU-seconds of lanes that the table does not name; they are not in the cost."""


def account(uses: Iterable[Use], seconds: float) -> dict[LaneKey, Account]:
    """What the pods held and used during the last `seconds`, by queue and lane, at the activity that their samples show."""
    accounts: dict[LaneKey, Account] = defaultdict(Account)
    for use in uses:
        held = use.holder.gpus * seconds
        known = held * use.known if use.activity is not None else 0.0
        accounts[use.holder.queue, use.holder.lane] += Account(held=held, used=known * (use.activity or 0.0), unknown=held - known)
    return dict(accounts)


def bill(accounts: Mapping[LaneKey, Account], prices: Mapping[str, float]) -> dict[str, Bill]:
    """What each queue's GPUs cost.

    Args:
        accounts: GPU-seconds by queue and lane.
        prices: of a GPU for an hour, by lane.
    """
    bills: dict[str, Bill] = {}
    for (queue, lane), used in sorted(accounts.items()):
        price = prices.get(lane, 0.0) / _HOUR
        before = bills.get(queue, Bill(account=Account(), cost=0.0, idle_cost=0.0, unpriced=0.0))
        bills[queue] = Bill(
            account=before.account + used,
            cost=before.cost + used.held * price,
            idle_cost=before.idle_cost + used.idle * price,
            unpriced=before.unpriced + (0.0 if lane in prices else used.held),
        )
    return bills
