"""How people write: customers' names as a bank prints them, and references as payers type them.

Story: `generator.py` decides who pays which invoice; here that becomes text, with what goes wrong in it. Nothing is drawn from a real
table. What can happen to a text was chosen so that each clue fails sometimes: names are cut off, misspelt or somebody else's, and numbers are
mistyped, shortened or not given at all.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

BANK_LENGTH = 27
"""Letters that the bank prints of a name."""
_STARTS = "al bar cor dal el fen gra hol il jor kel lun mar nor or pel quin ros sal tor ul ver wel yar zan bri cla dro fla gle".split()  # noqa: SIM905 – a line of syllables reads better
_MIDDLES = "a de mi no ra so ti va le ku".split()  # noqa: SIM905 – the same
_ENDS = "den ton ley wick ford mont ster vale ham by dor nia ric sen tex via well bury comb rell mere lock".split()  # noqa: SIM905 – the same
_TRADES = "timber logistics foods textiles engineering print motors supplies interiors packaging systems media".split()  # noqa: SIM905 – the same
_FORMS = ("Ltd", "Limited", "PLC", "LLP", "& Sons", "Group", "GmbH", "SA", "BV")
_STRANGERS = (
    "Northgate Factoring",
    "Payflow Services Ltd",
    "Holding Treasury Centre",
    "Mr J Okafor",
    "Ms A Lindqvist",
    "Clearing Account 12",
)
_CHATTER = ("payment", "thank you", "invoice", "as agreed", "transfer", "settlement", "your invoice", "goods", "services")
_OTHER = ("salary", "rent", "refund card", "loan instalment", "vat return", "insurance claim", "deposit", "tax repayment", "interest")


def company_name(rng: random.Random) -> str:
    """A customer, as the ledger spells it: `Keldeton Timber Ltd`."""
    middle = rng.choice(_MIDDLES) if rng.random() < 0.6 else ""
    root = rng.choice(_STARTS) + middle + rng.choice(_ENDS)
    trade = f" {rng.choice(_TRADES)}" if rng.random() < 0.7 else ""
    return f"{f'{root}{trade}'.title()} {rng.choice(_FORMS)}"


def printed_name(name: str, rng: random.Random) -> str:
    """A payer as the bank prints it: in capitals, cut off, now and then misspelt, shortened, or somebody who pays for somebody else."""
    if rng.random() < 0.05:
        return rng.choice(_STRANGERS).upper()
    words = name.split()
    if rng.random() < 0.3:
        words = words[:-1]  # without its legal form
    if rng.random() < 0.08 and len(words) > 1:
        words = [words[0], *(word[0] for word in words[1:])]
    text = " ".join(words)
    if rng.random() < 0.1:
        text = mistyped(text, rng)
    return text.upper()[:BANK_LENGTH].strip()


def stranger(rng: random.Random) -> tuple[str, str]:
    """Payer and reference of a transfer that pays no invoice."""
    payer = rng.choice(_STRANGERS) if rng.random() < 0.5 else company_name(rng)
    number = f" {rng.randrange(10_000, 10_000_000)}" if rng.random() < 0.6 else ""
    return payer.upper()[:BANK_LENGTH], f"{rng.choice(_OTHER)}{number}"


def reference(numbers: Sequence[str], customer_number: int, rng: random.Random) -> str:
    """What a payer types to say which invoices are meant, of numbers such as `INV-2024-004711`."""
    if rng.random() < (0.14 if len(numbers) == 1 else 0.3):
        order = f" order {rng.randrange(1000, 99_999)}" if rng.random() < 0.4 else ""
        return rng.choice(_CHATTER) + order  # says nothing
    style = rng.randrange(5)
    named = [_shown(number, style if place == 0 else rng.choice((style, 3)), rng) for place, number in enumerate(numbers)]
    named = [mistyped(each, rng, digits=True) if rng.random() < 0.1 else each for each in named]
    if len(named) > 1 and rng.random() < 0.2:
        named = named[: rng.randrange(1, len(named))]  # and the others go without saying
    text = rng.choice((", ", " + ", " / ", " ")).join(named)
    if rng.random() < 0.25:
        text += f" customer {customer_number}"
    return f"{rng.choice(_CHATTER)} {text}" if rng.random() < 0.3 else text


def mistyped(text: str, rng: random.Random, *, digits: bool = False) -> str:
    """`text` with one letter (or digit) dropped, doubled, replaced, or exchanged for its neighbour."""
    places = [at for at, letter in enumerate(text) if (letter.isdigit() if digits else letter.isalpha())]
    if len(places) < 3:
        return text
    at = rng.choice(places[1:])
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    if kind == 2:
        return text[:at] + rng.choice(string.digits if digits else string.ascii_lowercase) + text[at + 1 :]
    return text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :]


def _shown(number: str, style: int, rng: random.Random) -> str:
    year, serial = number.split("-")[1:]
    shapes = (number, number.replace("-", " "), f"{year}{serial}", serial.lstrip("0") or "0", f"INV {year}/{serial.lstrip('0')}")
    text = shapes[style]
    return text.lower() if rng.random() < 0.3 else text
