"""How near a text is to the one that was wanted: BLEU, chrF, exact match, character errors."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from toolkit.metrics.base import OfflineMetric, State, ratio


class TextMetric(OfflineMetric):
    """Of texts, one reference each; what is kept are sums over them.

    Inputs: predictions, references: lists of as many strings.
    """

    inputs: ClassVar = {"predictions": str, "references": str}

    def _info(self):
        import datasets
        import evaluate

        return evaluate.MetricInfo(
            description=type(self).__doc__, citation="", inputs_description="Inputs: predictions, references (string)",
            features=datasets.Features({name: datasets.Value("string") for name in self.inputs}))

    def _batch(self, given: dict[str, Any]) -> State:
        predictions, references = (self._texts(name, given.get(name)) for name in ("predictions", "references"))
        if len(predictions) != len(references):
            raise ValueError(f"{self.name} was given {len(predictions)} predictions and {len(references)} references; "
                             f"expected as many.")
        if not references:
            return {}
        return {"examples": len(references), **self._statistics(predictions, references)}

    def _texts(self, name: str, texts: Any) -> list[str]:
        if texts is None or isinstance(texts, str) or not isinstance(texts, Sequence | np.ndarray):
            raise ValueError(f"{self.name} was given {name} that are no list; expected a list of texts.")
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise ValueError(f"{self.name} was given {type(wrong[0]).__name__} among {name}; expected texts.")
        return list(texts)


class Bleu(TextMetric):
    """BLEU (Papineni et al. 2002) as sacrebleu computes it (Post 2018): cased, 13a's words, exponential smoothing.

    Result: {"bleu": float in [0, 100], "bleu_signature": str}. `load("bleu", lowercase=True)` is another BLEU, and its
    signature says so. Not the hub's module of this name, whose scores are in [0, 1] and whose words are others.
    """

    keeps = ("counts",)

    def __init__(self, config_name: str | None = None, lowercase: bool = False, **kwargs):
        super().__init__(config_name, **kwargs)
        self._bleu = BLEU(lowercase=lowercase)
        self._bleu.corpus_score([""], [[""]])  # a signature wants to know that there is one reference

    def _statistics(self, predictions: list[str], references: list[str]) -> State:
        found = self._bleu.corpus_score(predictions, [references])
        return {"counts": np.asarray([*found.counts, *found.totals, found.sys_len, found.ref_len])}

    def _result(self, state: State, **_) -> dict[str, float | str]:
        *grams, predicted, wanted = state["counts"].tolist()
        found = BLEU.compute_bleu(grams[:4], grams[4:], predicted, wanted, smooth_method="exp")
        return {"bleu": found.score, "bleu_signature": str(self._bleu.get_signature())}


def bleu_interval(predictions: Sequence[str], references: Sequence[str], draws: int = 1000, seed: int = 0
                  ) -> tuple[float, float]:
    """How far other test pairs would move BLEU: both ends of its 95 % interval.

    Koehn (2004), *Statistical significance tests for machine translation evaluation*: pairs drawn anew, with returning.
    """
    # sacrebleu tells these sums to its own tests of significance alone: both lengths, n-grams that match, all n-grams.
    counts = np.asarray(BLEU()._extract_corpus_statistics(list(predictions), [list(references)]))
    drawn = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), draws) @ counts
    found = [BLEU.compute_bleu(row[2:6], row[6:10], row[0], row[1], smooth_method="exp").score
             for row in drawn.tolist()]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


class Chrf(TextMetric):
    """chrF2 (Popović 2015) as sacrebleu computes it: F2 of n-grams of 1 to 6 characters, blanks left out.

    Result: {"chrf": float in [0, 100]}.
    """

    keeps = ("counts",)

    def __init__(self, config_name: str | None = None, **kwargs):
        super().__init__(config_name, **kwargs)
        self._chrf = CHRF()

    def _statistics(self, predictions: list[str], references: list[str]) -> State:
        # sacrebleu tells these sums to its own tests of significance alone.
        return {"counts": np.sum(self._chrf._extract_corpus_statistics(predictions, [references]), 0)}

    def _result(self, state: State, **_) -> dict[str, float]:
        return {"chrf": self._chrf._compute_score_from_stats(state["counts"].tolist()).score}


def pair_chrf(predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """(n,) chrF of each pair by itself, in [0, 100]."""
    chrf = CHRF()
    return np.asarray([chrf.sentence_score(*pair).score for pair in zip(predictions, ([text] for text in references),
                                                                        strict=True)])


class ExactMatch(TextMetric):
    """Share of texts that are the reference, character by character. Result: {"exact_match": float in [0, 1]}."""

    keeps = ("same",)

    def _statistics(self, predictions: list[str], references: list[str]) -> State:
        return {"same": sum(a == b for a, b in zip(predictions, references, strict=True))}

    def _result(self, state: State, **_) -> dict[str, float]:
        return {"exact_match": ratio(state["same"], state["examples"])}


class CharacterErrorRate(TextMetric):
    """Characters to insert, delete or replace (Levenshtein 1966) for each of the references'; above 1 where an answer
    is longer than what was wanted.

    Result: {"character_error_rate": float ≥ 0, or None where no reference has a character}.
    """

    keeps = ("errors", "characters")

    def _statistics(self, predictions: list[str], references: list[str]) -> State:
        return {"errors": sum(map(edit_distance, predictions, references)), "characters": sum(map(len, references))}

    def _result(self, state: State, **_) -> dict[str, float | None]:
        return {"character_error_rate": ratio(state["errors"], state["characters"])}


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's, a row of the table at a time."""
    places = np.arange(len(other) + 1)
    letters = np.frombuffer(other.encode("utf-32-le", errors="surrogatepass"), np.uint32)
    row = places.copy()
    for number, letter in enumerate(one, 1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (letters != ord(letter)))
        row = np.concatenate([[number], changed])
        row = np.minimum.accumulate(row - places) + places  # an insertion costs 1 a place
    return int(row[-1])
