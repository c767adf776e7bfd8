"""The generated warehouse keeps its promises: same seed same rows, nothing before it happened, closed accounts are silent, campaigns change."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from project_modules import module_of

PROJECT = Path(__file__).parents[4] / "pipelines" / "projects" / "scam-users"
TABLES = ("users", "logins", "messages", "payments", "reports", "verdicts")

generator = module_of(PROJECT, "generator")


@pytest.fixture(scope="module")
def warehouse(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("warehouse") / "warehouse.db"
    generator.write_warehouse(file, users=300, days=60, seed=3)
    return file


def asked(warehouse: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(warehouse)) as database:
        return database.execute(query).fetchall()


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(generator: ModuleType, warehouse: Path, tmp_path: Path) -> None:
    for seed, same in ((3, True), (4, False)):
        generator.write_warehouse(tmp_path / "again.db", users=300, days=60, seed=seed)
        assert all(asked(warehouse, f"SELECT * FROM {t}") == asked(tmp_path / "again.db", f"SELECT * FROM {t}") for t in TABLES) is same


@pytest.mark.parametrize("table", TABLES)
def test_nothing_arrives_before_it_happens_or_after_the_period(warehouse: Path, table: str) -> None:
    rows, early, last = asked(warehouse, f"SELECT count(*), sum(loaded_at <= happened_at), max(loaded_at) FROM {table}")[0]
    assert rows > 0
    assert early == 0
    assert last < "2025-03-02 00:00:00.000000", "sixty days from the first of January"


def test_an_account_that_was_closed_does_nothing_any_more(warehouse: Path) -> None:
    later = asked(
        warehouse,
        "SELECT count(*) FROM messages m JOIN verdicts v ON m.user_id = v.user_id "
        "WHERE v.verdict = 'scam' AND date(m.happened_at) > date(v.happened_at)",
    )
    assert later == [(0,)]


def test_some_payments_come_days_late(warehouse: Path) -> None:
    ((late, rows),) = asked(warehouse, "SELECT sum(julianday(loaded_at) - julianday(happened_at) > 2), count(*) FROM payments")
    assert 0.01 < late / rows < 0.06


def test_a_campaign_that_nobody_has_seen_starts_in_the_second_half(generator: ModuleType) -> None:
    world = sys.modules["scam_world"]
    accounts = generator.draw_accounts(np.random.default_rng(5), users=4000, days=100)
    slow = [campaign.name for campaign in world.CAMPAIGNS].index("slow")
    assert accounts.turns[accounts.campaign == slow].min() >= 50
    assert accounts.turns[accounts.campaign == 0].min() < 10
    assert (accounts.turns >= accounts.opened)[accounts.campaign >= 0].all()


def test_too_small_a_world_is_refused(generator: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 50"):
        generator.write_warehouse(tmp_path / "w.db", users=5)
