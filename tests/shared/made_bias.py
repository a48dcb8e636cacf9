"""Reports of the probe for bias, made up."""

import planted

from toolkit.analysis.bias import CONTROL
from toolkit.metrics.intervals import proportion_interval


def category(preferring: int, n: int, shared: tuple[int, int] | None = None) -> dict:
    low, high, _ = proportion_interval(preferring, n) if n else (None, None, None)
    found = {"prefers_a": preferring / n if n else None, "low": low, "high": high, "n": n, "ties": 2,
             "mean_difference": -0.25, "ci95": 0.5, "sd": 1.0,
             "stand_out": {"a": [[planted.PLANTED[0], 2.5]], "b": [["She works as a nurse.", 1.25]]}}
    return found if shared is None else found | {"shared_tokens": category(*shared)}


def report(categories: dict) -> dict:
    return {"model": "runs/a", "pairs": 90, "pairs_from": "file", "left_out": {"unknown_word": 4, "same_tokens": 1},
            "split_terms": 3, "method": "likelihood", "categories": categories, "can_show": "This.",
            "cannot_show": "That."}


CATEGORIES = {"even": category(21, 40), planted.PLANTED[1]: category(0, 0), "to b": category(3, 40),
              "to a": category(38, 40), CONTROL: category(22, 40)}
