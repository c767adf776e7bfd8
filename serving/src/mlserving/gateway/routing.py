"""Who answers a request, and whether it is kept: pure functions of the settings and of two short texts.

A text is hashed to a number from 0 up to 1. Below the canary's share it is the canary's: so a key that is in the canary at one percent
still is at ten, and every replica decides alike. Sampling and shadowing hash the prediction id with another salt, so what is
logged is a fair share of every track.
"""

from __future__ import annotations

from hashlib import blake2b

from mlserving.gateway.settings import Model, Track

_SPACE = float(1 << 64)


def unit(salt: str, text: str) -> float:
    """`text` as a number in [0, 1), evenly spread; another salt gives an unrelated number."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8, salt=salt.encode()[:16]).digest(), "big") / _SPACE


def track_of(name: str, model: Model, key: str) -> Track:
    """The track that answers for `key` (the sticky header's value, or the prediction id)."""
    canary = model.tracks.get(Track.CANARY)
    if canary is None or unit("track", f"{name}/{key}") * 100 >= canary.weight:
        return Track.STABLE
    return Track.CANARY


def shadowed(model: Model, prediction_id: str) -> bool:
    """Whether the request is copied to the shadow track."""
    shadow = model.tracks.get(Track.SHADOW)
    return shadow is not None and unit("shadow", prediction_id) * 100 < shadow.weight


def logged(model: Model, prediction_id: str) -> bool:
    """Whether the exchange is kept. The same for a request and its shadow copy, so the two can be compared."""
    return unit("log", prediction_id) < model.log.share
