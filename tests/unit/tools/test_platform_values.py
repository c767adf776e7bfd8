"""The platform's charts: values.yaml has the fields that are modelled, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from platform_values import CHARTS

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("chart", CHARTS)
def test_the_defaults_are_what_is_modelled(chart: str) -> None:
    msgspec.convert(yaml.safe_load((ROOT / "helm" / chart / "values.yaml").read_text()), CHARTS[chart])


@pytest.mark.parametrize("chart", CHARTS)
def test_a_misspelt_value_is_refused(chart: str) -> None:
    values: Any = yaml.safe_load((ROOT / "helm" / chart / "values.yaml").read_text())
    with pytest.raises(msgspec.ValidationError, match="unknown field `networkPolicies`"):
        msgspec.convert({**values, "networkPolicies": {}}, CHARTS[chart])
