"""How each content looks: small pictures drawn with Pillow, none like another of its kind.

Story: `generator.rows` decides what is on an image and where; here it is drawn. A drawing gets a box to stay in and a source of chance for
its colours, its proportions and its position, so that a model has to learn shapes and not places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import ImageDraw

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Colour = tuple[int, int, int]


def person(draw: ImageDraw.ImageDraw, box: Box, rng: np.random.Generator) -> None:
    """A head above shoulders."""
    left, top, right, bottom = box
    width, middle = right - left, (left + right) / 2
    head = width * rng.uniform(0.22, 0.3)
    neck = top + 2 * head
    draw.ellipse((middle - head, top, middle + head, neck), fill=_near((205, 160, 130), rng, 35))
    draw.pieslice((left, neck - head * 0.2, right, 2 * bottom - neck), 180, 360, fill=_any(rng))


def vehicle(draw: ImageDraw.ImageDraw, box: Box, rng: np.random.Generator) -> None:
    """A body with a cabin, on two wheels."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    paint, roof = _any(rng), rng.uniform(0.15, 0.35)
    draw.polygon(
        [
            (left + width * 0.2, top + height * 0.55),
            (left + width * 0.3, top + height * roof),
            (left + width * 0.7, top + height * roof),
            (left + width * 0.85, top + height * 0.55),
        ],
        fill=_near((170, 200, 220), rng, 25),
    )
    draw.rectangle((left, top + height * 0.5, right, top + height * 0.78), fill=paint)
    for place in (0.22, 0.76):
        wheel = (left + width * place, top + height * 0.8)
        draw.ellipse(
            (wheel[0] - height * 0.15, wheel[1] - height * 0.15, wheel[0] + height * 0.15, wheel[1] + height * 0.15), fill=(25, 25, 28)
        )


def plant(draw: ImageDraw.ImageDraw, box: Box, rng: np.random.Generator) -> None:
    """A trunk with leaves: a few triangles, or a few circles."""
    left, top, right, bottom = box
    width, height, middle = right - left, bottom - top, (left + right) / 2
    draw.rectangle((middle - width * 0.06, top + height * 0.55, middle + width * 0.06, bottom), fill=_near((105, 75, 45), rng, 15))
    pointed = rng.random() < 0.5
    for floor in range(3):
        green, reach = _near((50, 130, 55), rng, 30), width * (0.24 + 0.1 * floor)
        low = top + height * (0.35 + 0.2 * floor)
        if pointed:
            draw.polygon([(middle, low - height * 0.35), (middle - reach, low), (middle + reach, low)], fill=green)
        else:
            at = middle + rng.uniform(-0.2, 0.2) * width
            draw.ellipse((at - width * 0.25, low - height * 0.3, at + width * 0.25, low), fill=green)


def lettering(draw: ImageDraw.ImageDraw, box: Box, rng: np.random.Generator) -> None:
    """Lines of words, too small to be read."""
    left, top, right, bottom = box
    dark = rng.random() < 0.7
    ink = _near((35, 35, 45), rng, 20) if dark else _near((240, 235, 225), rng, 12)
    lines = int(rng.integers(3, 6))
    height = (bottom - top) / lines
    for line in range(lines):
        at, low = left, top + height * line
        while at < right:
            word = (right - left) * rng.uniform(0.08, 0.25)
            draw.rectangle((at, low + height * 0.15, min(at + word, right), low + height * 0.6), fill=ink)
            at += word + (right - left) * 0.06


def bottle(draw: ImageDraw.ImageDraw, box: Box, rng: np.random.Generator) -> None:
    """A body that narrows to a neck, with a label."""
    left, top, right, bottom = box
    width, height, middle = right - left, bottom - top, (left + right) / 2
    glass = _near(((40, 95, 60), (120, 70, 30), (90, 140, 175))[int(rng.integers(3))], rng, 20)
    half, neck = width * rng.uniform(0.18, 0.26), width * 0.08
    draw.rounded_rectangle((middle - half, top + height * 0.38, middle + half, bottom), radius=max(1.0, half * 0.4), fill=glass)
    draw.polygon([(middle - half, top + height * 0.45), (middle - neck, top + height * 0.25), (middle + neck, top + height * 0.25),
                  (middle + half, top + height * 0.45)], fill=glass)  # fmt: skip
    draw.rectangle((middle - neck, top, middle + neck, top + height * 0.3), fill=glass)
    draw.rectangle((middle - half, top + height * 0.6, middle + half, top + height * 0.78), fill=_near((230, 225, 205), rng, 20))


def barcode(draw: ImageDraw.ImageDraw, box: Box, rng: np.random.Generator) -> None:
    """Upright bars of different widths on white."""
    left, top, right, bottom = box
    low = bottom - (bottom - top) * rng.uniform(0.2, 0.4)
    draw.rectangle((left, top, right, low), fill=(248, 248, 246))
    at = left + (right - left) * 0.06
    while at < right - (right - left) * 0.08:
        bar = (right - left) * rng.choice((0.03, 0.06))
        draw.rectangle((at, top + (low - top) * 0.1, at + bar, low - (low - top) * 0.1), fill=(15, 15, 15))
        at += bar + (right - left) * rng.choice((0.05, 0.09))


def clutter(draw: ImageDraw.ImageDraw, box: Box, rng: np.random.Generator) -> None:
    """Something that is none of the contents, in their colours."""
    left, top, right, bottom = box
    shape = (draw.ellipse, draw.rectangle)[int(rng.integers(2))]
    inset = rng.uniform(0.1, 0.3) * (right - left)
    shape((left + inset, top + inset, right - inset * rng.uniform(0.5, 1.2), bottom - inset), fill=_any(rng))


CONTENTS: Mapping[str, Callable[[ImageDraw.ImageDraw, Box, np.random.Generator], None]] = {
    "person": person,
    "vehicle": vehicle,
    "plant": plant,
    "lettering": lettering,
    "bottle": bottle,
    "barcode": barcode,
}


def _near(colour: Colour, rng: np.random.Generator, spread: int) -> Colour:
    red, green, blue = (int(value) for value in np.clip(np.array(colour) + rng.integers(-spread, spread + 1, 3), 0, 255))
    return red, green, blue


def _any(rng: np.random.Generator) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(30, 235, 3))
    return red, green, blue
