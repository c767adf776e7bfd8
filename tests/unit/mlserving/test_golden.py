"""When an answer counts as the one that was published."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mlserving.client.golden import agrees


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (0.5, 0.50005),
        (5000.0, 5000.4),
        ([[1.0, 2.0], [3.0]], [[1.0, 2.0], [3.0]]),
        (math.nan, math.nan),
        (math.inf, math.inf),
        ("tools", b"tools"),
        ({"b64": "//4="}, b"\xff\xfe"),
        (["a", {"b64": "Yg=="}], [b"a", b"b"]),
        (7, 7),
        (True, True),
    ],
)
def test_these_are_the_same(expected: Any, found: Any) -> None:
    assert agrees(expected, found, 1e-4)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (0.5, 0.5002),
        (5000.0, 5000.6),
        ([1.0, 2.0], [1.0]),
        ([1.0], 1.0),
        (math.nan, 1.0),
        (1.0, math.nan),
        (math.inf, -math.inf),
        (1.0, math.inf),
        ("tools", b"travel"),
        ("1", 1),
        (7, 8),
    ],
)
def test_these_are_not(expected: Any, found: Any) -> None:
    assert not agrees(expected, found, 1e-4)
