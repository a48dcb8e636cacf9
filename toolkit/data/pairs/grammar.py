"""Pairs that every machine has: dates and numbers in words → digits, from a grammar; letters → the same, reversed.

Dates are put together of parts (weekday or none, day before month or behind it, the day as a number, with its ending or
in words, the year in digits or in words). Some combinations are held out: each of their parts is in training, together
they are in the test alone. So a model that learned sentences by heart fails, and one that learned the parts does not.
"""

import datetime
import itertools

import numpy as np

from toolkit.data import counter
from toolkit.data.pairs.text_pairs import TextPairs

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
         "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
             "twelve": "twelfth"}
FIRST_YEAR, LAST_YEAR = 1800, 2099
TEMPLATES = tuple(itertools.product((False, True), ("day first", "month first"), ("4", "4th", "fourth"),
                                    ("digits", "words")))
"""(weekday, order, day, year)."""
HELD_OUT = tuple(template for number, template in enumerate(TEMPLATES) if number % 5 == 3)
"""Of them every fifth: 5 of 24."""
_STREAMS = {"train": 1, "validation": 2, "test": 3}


def number_words(number: int) -> str:
    """0 … 999,999 in British English."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{_ONES[hundreds]} hundred" + (f" and {number_words(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    joint = " and " if 0 < rest < 100 else " " if rest else ""
    return f"{number_words(thousands)} thousand{joint}{number_words(rest) if rest else ''}"


def ordinal_words(number: int) -> str:
    """1 … 99: first, twenty-third."""
    head, dash, last = number_words(number).rpartition("-")
    last = _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return f"{head}{dash}{last}"


def year_words(year: int) -> str:
    """1800 … 2099 as they are said: nineteen oh five, nineteen hundred, two thousand and seven, twenty eighteen."""
    if 2000 <= year < 2010:
        return number_words(year)
    century, rest = divmod(year, 100)
    return f"{number_words(century)} " + ("hundred" if not rest else f"oh {_ONES[rest]}" if rest < 10
                                          else number_words(rest))


def written_date(date: datetime.date, template: tuple[bool, str, str, str]) -> str:
    """A date as a template writes it."""
    weekday, order, day, year = template
    ending = "th" if date.day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
    number = {"4": str(date.day), "4th": f"{date.day}{ending}", "fourth": ordinal_words(date.day)}[day]
    month, when = MONTHS[date.month - 1], str(date.year) if year == "digits" else year_words(date.year)
    if order == "month first":
        text = f"{month} {number}, {when}"
    else:
        text = f"the {number} of {month} {when}" if day == "fourth" else f"{number} {month} {when}"
    return f"{WEEKDAYS[date.weekday()]}, {text}" if weekday else text


def dates_and_numbers(count: int, split: str, seed: int = 0) -> TextPairs:
    """Of each ten two are numbers. The test's dates are of the templates that are held out; days may come again, the
    sentences of the test never were in training.
    """
    draws = counter.uniform(counter.key(seed, 0xDA7E5, _STREAMS[split]), np.arange(count), 4)
    templates = HELD_OUT if split == "test" else tuple(t for t in TEMPLATES if t not in HELD_OUT)
    first = datetime.date(FIRST_YEAR, 1, 1).toordinal()
    days = datetime.date(LAST_YEAR, 12, 31).toordinal() - first + 1
    sources, targets = [], []
    for kind, which, how, size in draws:
        if kind < 0.2:
            # Short ones as often as long ones; every seventh number is the test's alone.
            number = min(int(10 ** (6 * size) * (1 - which) + which), 999_998)
            number = number - number % 7 + (6 if split == "test" else min(number % 7, 5))
            sources.append(number_words(number))
            targets.append(str(number))
        else:
            date = datetime.date.fromordinal(first + int(which * days))
            sources.append(written_date(date, templates[int(how * len(templates))]))
            targets.append(date.isoformat())
    return TextPairs(sources, targets, [f"grammar, {split}, {number}" for number in range(1, count + 1)])


def reversals(count: int, split: str, longest: int = 16, seed: int = 0) -> TextPairs:
    """Letters and the same from the last to the first, of 1 to `longest` letters, as many of each length.

    What was read in a state must be let go in the other order: the state alone cannot hold many letters.
    """
    stream = counter.key(seed, 0x5EAE5, _STREAMS[split])
    letters = (counter.uniform(stream, np.arange(count), longest) * 26).astype(int)
    sources = ["".join(chr(97 + letter) for letter in row[:1 + number % longest]) for number, row in enumerate(letters)]
    return TextPairs(sources, [source[::-1] for source in sources],
                     [f"reversal, {split}, {number}" for number in range(1, count + 1)])
