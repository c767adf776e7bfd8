"""How much of a model people look at: the project's `review` section, which travels with each version that is published.

`millrace review fill` goes by the newest version's (`carried.py`) where its options say nothing else.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mlserving.settings_file import Strict

Share = Annotated[float, Field(ge=0, le=1)]


class ReviewSettings(Strict):
    """How many predictions people look at, and which."""

    capacity: int = Field(default=100, ge=1)
    """Reviews a day. A case that two people look at is two."""
    random: Share = 0.3
    """Share of the cases that are drawn at random; the others are those of which the model is least sure."""
    double: Share = 0.1
    """Share of the cases that two people look at, which shows how far people agree."""
    minimum: int = Field(default=2, ge=0)
    """Cases of each predicted class, as far as half of the random share goes."""
    margin: str | None = None
    """The output with a score for each class: then the margin between the first two says how sure the model is, not its confidence."""
    due_days: int = Field(default=2, ge=1)
    """Days within which a case should be reviewed."""
    most_waiting: int | None = Field(default=None, ge=1)
    """While so many reviews wait, nothing is added; where not set, five days' capacity."""
