"""A marketplace's warehouse that never was, in a SQLite file: accounts, logins, messages, payments, reports, and moderators' verdicts.

Story: `project.yaml` names the file as its warehouse, and `feature_views.yaml` says what is counted in it. Every row has the time at which it
happened and the time at which it could be read: messages are there at once, payments are loaded at night and some come days late, a verdict comes days
after the scam. A closed account does nothing any more. The world is in `scam_world`; the same options give the same rows.

By hand: `python generator.py [--users 2500 --days 150 --out warehouse.db]`.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import scam_world as world
from scam_world import Flags, Floats, Integers

DAY = 86_400
START = "2025-01-01"
SCAMMERS = 0.06
MADE_BEFORE = 400
"""Days before the period over which the older accounts were opened."""
Columns = Mapping[str, Sequence[object] | Integers | Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """Everybody, each field [accounts]; days are counted from the first of the period and may be negative."""

    kind: Integers
    """Of its honest behaviour, index into `HONEST`."""
    campaign: Integers
    """Index into `CAMPAIGNS`; -1: honest."""
    opened: Integers
    turns: Integers
    """The day from which on it scams."""
    ends: Integers
    """The day from which on it does not any more."""
    verdict: Floats
    """The day, with its fraction, on which it is judged to scam; infinite: never."""

    def __len__(self) -> int:
        """Accounts."""
        return len(self.kind)


def write_warehouse(path: Path, *, users: int = 2500, days: int = 150, seed: int = 11) -> None:
    """Write the period's events into a new SQLite file; one that is there is replaced once the new one is whole.

    Raises:
        ValueError: there are too few users or days for anything to happen.
    """
    if users < 50 or days < 30:
        raise ValueError(f"users must be at least 50 and days at least 30, not {users} and {days}")
    rng = np.random.default_rng(seed)
    accounts = draw_accounts(rng, users=users, days=days)
    tables = {"users": _opened(accounts, rng), "verdicts": _verdicts(accounts, days, rng), **_events(accounts, days, rng)}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished)) as database:
        for name, columns in tables.items():
            _write(database, name, columns, until=days)
        database.commit()
    unfinished.replace(path)


def draw_accounts(rng: np.random.Generator, *, users: int, days: int) -> Accounts:
    """Who there is, who of them scams from when on, and when somebody finds out."""
    kind = rng.choice(len(world.HONEST), users, p=[share for _, share, _ in world.HONEST])
    scams = rng.random(users) < SCAMMERS
    campaign = np.where(scams, rng.choice(len(world.CAMPAIGNS), users, p=[c.share for c in world.CAMPAIGNS]), -1)
    opened = np.where(rng.random(users) < 0.6, rng.integers(-MADE_BEFORE, 0, users), rng.integers(0, days, users))
    turns, ends, verdict = np.full(users, days * 10), np.full(users, days * 10), np.full(users, np.inf)
    for number, each in enumerate(world.CAMPAIGNS):
        mine = np.flatnonzero(campaign == number)
        turns[mine] = rng.integers(int(each.begins * days), int(each.ends * days), len(mine))
        waits = rng.integers(each.waits[0], each.waits[1] + 1, len(mine))
        opened[mine] = np.minimum(opened[mine], turns[mine] - 30) if each.takes_over else turns[mine] - waits
        ends[mine] = turns[mine] + each.lasts
        late = each.found * rng.lognormal(0.0, 0.5, len(mine))
        verdict[mine] = np.where(rng.random(len(mine)) < world.NEVER_FOUND, np.inf, turns[mine] + 0.5 + late)
    wrongly = ~scams & (rng.random(users) < world.WRONGLY_FOUND)
    verdict[wrongly] = rng.uniform(0, days, int(wrongly.sum()))
    return Accounts(kind=kind, campaign=campaign, opened=opened, turns=turns, ends=ends, verdict=verdict)


def _events(accounts: Accounts, days: int, rng: np.random.Generator) -> dict[str, Columns]:
    """Logins, messages, payments and reports of every day on which an account is open and active."""
    day = np.arange(days)
    scamming = (day >= accounts.turns[:, None]) & (day < accounts.ends[:, None])
    kinds = np.where(scamming, len(world.HONEST) + accounts.campaign[:, None], accounts.kind[:, None])
    waiting = (accounts.campaign[:, None] >= 0) & (day >= accounts.ends[:, None])  # a used account is left alone
    there = (day >= accounts.opened[:, None]) & (day < accounts.verdict[:, None]) & ~waiting
    active = there & (rng.random(kinds.shape) < world.field("active")[kinds])
    energy = rng.lognormal(0.0, 0.6, len(accounts))[:, None]

    def drawn(rate: str, *, where: Flags = active) -> tuple[Integers, Integers, Integers]:
        """Account, behaviour and second of each event."""
        counts = rng.poisson(world.field(rate)[kinds] * energy * where)
        who, when = np.repeat(np.arange(len(accounts)), counts.sum(axis=1)), np.repeat(np.tile(day, len(accounts)), counts.ravel())
        return who, np.repeat(kinds.ravel(), counts.ravel()), when * DAY + rng.integers(6 * 3600, DAY, len(who))

    return {
        "logins": _logins(*drawn("logins"), rng),
        "messages": _messages(*drawn("messages"), rng),
        "payments": _payments([drawn(name) for name in ("paid", "received", "withdrawn")], rng),
        "reports": _reports(*drawn("reported", where=there), rng),
    }


def _logins(who: Integers, kind: Integers, second: Integers, rng: np.random.Generator) -> Columns:
    strange = rng.random(len(who)) < world.field("strange")[kind]
    home = who % len(world.COUNTRIES)
    country = np.where(strange & (rng.random(len(who)) < 0.5), rng.integers(0, len(world.COUNTRIES), len(who)), home)
    return {
        **_of(who, second, arrived=second + rng.integers(60, 1800, len(who))),
        "device": [f"{one}-{number}" for one, number in zip(who, np.where(strange, rng.integers(2, 60, len(who)), 1), strict=True)],
        "country": np.array(world.COUNTRIES)[country],
        "succeeded": (rng.random(len(who)) >= world.field("failed")[kind]).astype(np.int64),
    }


def _messages(who: Integers, kind: Integers, second: Integers, rng: np.random.Generator) -> Columns:
    first = rng.random(len(who)) < world.field("first")[kind]
    known = who * 1000 + rng.integers(0, world.field("partners")[kind].astype(np.int64))
    return {
        **_of(who, second, arrived=second + rng.integers(1, 120, len(who))),
        "recipient": np.where(first, 10_000_000 + np.arange(len(who)), known),
        "first_contact": first.astype(np.int64),
        "has_link": (rng.random(len(who)) < world.field("links")[kind]).astype(np.int64),
        "letters": (world.field("length")[kind] * rng.lognormal(0.0, 0.7, len(who))).astype(np.int64) + 1,
    }


def _payments(drawn: list[tuple[Integers, Integers, Integers]], rng: np.random.Generator) -> Columns:
    direction = np.repeat(["out", "in", "withdrawal"], [len(each[0]) for each in drawn])
    who, kind, second = (np.concatenate(part) for part in zip(*drawn, strict=True))
    night = (second // DAY + 1) * DAY + 2 * 3600  # loaded at two in the morning
    late = np.where(rng.random(len(who)) < 0.03, rng.integers(1, 6, len(who)), 0) * DAY
    return {
        **_of(who, second, arrived=night + late),
        "direction": direction,
        "amount": np.round(world.field("amount")[kind] * rng.lognormal(0.0, 0.8, len(who)), 2),
        "counterparty": who * 1000 + rng.integers(0, world.field("partners")[kind].astype(np.int64)),
    }


def _reports(who: Integers, kind: Integers, second: Integers, rng: np.random.Generator) -> Columns:
    del kind
    return {**_of(who, second, arrived=second + rng.integers(600, 7200, len(who))), "reporter": rng.integers(0, 5000, len(who))}


def _opened(accounts: Accounts, rng: np.random.Generator) -> Columns:
    count, scams = len(accounts), accounts.campaign >= 0
    own = scams & ~np.array([c.takes_over for c in world.CAMPAIGNS])[accounts.campaign]
    mail = np.where(rng.random(count) < np.where(own, 0.25, 0.02), 2, rng.random(count) < 0.15)
    second = accounts.opened * DAY + rng.integers(0, 6 * 3600, count)
    return {
        **_of(np.arange(count), second, arrived=second + 60),
        "country": np.array(world.COUNTRIES)[np.arange(count) % len(world.COUNTRIES)],
        "mail": np.array(world.MAIL)[mail.astype(np.int64)],
        "phone_verified": (rng.random(count) < np.where(own, 0.35, 0.7)).astype(np.int64),
    }


def _verdicts(accounts: Accounts, days: int, rng: np.random.Generator) -> Columns:
    """Accounts that were closed, and about as many that somebody looked at and found to be honest."""
    scam = np.flatnonzero(np.isfinite(accounts.verdict))
    clear = rng.choice(np.flatnonzero(accounts.campaign < 0), len(scam))
    who = np.concatenate([scam, clear])
    second = (np.concatenate([accounts.verdict[scam], rng.uniform(np.maximum(accounts.opened[clear], 0), days)]) * DAY).astype(np.int64)
    return {
        **_of(who, second, arrived=(second // DAY + 1) * DAY + 3 * 3600),
        "verdict": np.repeat(["scam", "clear"], [len(scam), len(clear)]),
    }


def _of(who: Integers, second: Integers, *, arrived: Integers) -> Columns:
    return {"user_id": np.char.add("u", who.astype(str)) if len(who) else [], "happened_at": second, "loaded_at": arrived}


def _write(database: sqlite3.Connection, name: str, columns: Columns, *, until: int) -> None:
    """A table with what had arrived by the end of the period, in the order of arrival."""
    arrived = np.asarray(columns["loaded_at"], dtype=np.int64)
    order = np.argsort(arrived, kind="stable")
    order = order[arrived[order] < until * DAY]
    values = [_texts(column, order) if title.endswith("_at") else _plain(column, order) for title, column in columns.items()]
    database.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
    database.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})", zip(*values, strict=True))  # noqa: S608 - names are ours
    database.execute(f"CREATE INDEX {name}_by_time ON {name} (happened_at)")
    database.execute(f"CREATE INDEX {name}_by_user ON {name} (user_id)")


def _plain(column: Sequence[object] | Integers | Floats, order: Integers) -> list[object]:
    values: list[object] = np.asarray(column)[order].tolist()
    return values


def _texts(seconds: Sequence[object] | Integers | Floats, order: Integers) -> list[object]:
    """Times as SQLAlchemy writes them into SQLite, so that they compare as text."""
    start = int(datetime.fromisoformat(START).replace(tzinfo=UTC).timestamp())
    moments = (np.asarray(seconds, dtype=np.int64)[order] + start).astype("datetime64[s]")
    return [f"{text[:10]} {text[11:]}.000000" for text in np.datetime_as_string(moments).tolist()]


def main() -> None:
    """Write a generated warehouse into a SQLite file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "warehouse.db")
    parser.add_argument("--users", type=int, default=2500)
    parser.add_argument("--days", type=int, default=150, help=f"from {START} on")
    parser.add_argument("--seed", type=int, default=11)
    given = parser.parse_args()
    write_warehouse(given.out, users=given.users, days=given.days, seed=given.seed)
    print(f"{given.users:,} accounts over {given.days} days in {given.out}")


if __name__ == "__main__":
    main()
