"""What a tokenizer does to a text: how many tokens, how many unknown, how many words whole, how fast, how exactly back.

Fertility and the share of words kept whole follow Ács (2019) and Rust et al. (2021, *How good is your tokenizer?*),
with words as runs of letters and digits.
"""

import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from toolkit.errors import UserError
from toolkit.tokenization.load import one_thread, plain_backend
from toolkit.views import View, Viewed, counted

WORD = re.compile(r"[^\W_]+")


def sample_paragraphs(texts: Iterable[str], characters: int) -> list[str]:
    """Paragraphs from the start of each text, as evenly from all as `characters` allow."""
    texts = list(texts)
    share = max(1, characters // max(1, len(texts)))
    return [paragraph for text in texts for paragraph in text[:share].split("\n\n") if paragraph.strip()]


@dataclass(frozen=True)
class Unknown:
    """What a tokenizer does not know of some texts."""

    characters: int
    """All that are no blanks."""
    lost: int
    """Those that an unknown token stands for, be they a word of which one character is not known."""
    examples: tuple[str, ...]
    """A few of the pieces of text that it stands for."""

    @property
    def share(self) -> float:
        return self.lost / max(1, self.characters)


def unknown_characters(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], at_once: int = 256) -> Unknown:
    """Count, in characters: one unknown token may stand for a whole sentence where no blanks part its words."""
    backend, unknown = plain_backend(tokenizer), tokenizer.unk_token_id
    backend.encode_special_tokens = True
    texts, characters, lost, examples = iter(texts), 0, 0, {}
    while part := list(itertools.islice(texts, at_once)):
        characters += sum(map(_length, part))
        if unknown is None:
            continue
        for text, encoding in zip(part, backend.encode_batch(part, add_special_tokens=False), strict=True):
            for piece in _unknown_pieces(text, encoding, unknown):
                lost += _length(piece)
                if piece and len(examples) < 3:
                    examples[piece] = None
    return Unknown(characters, lost, tuple(examples))


def _length(text: str) -> int:
    """Characters that are no blanks."""
    return len("".join(text.split()))


def _unknown_pieces(text: str, encoding: Encoding, unknown: int) -> list[str]:
    """What of a text unknown tokens stand for, without blanks."""
    if unknown not in encoding.ids:
        return []
    spans = {span for token, span in zip(encoding.ids, encoding.offsets, strict=True) if token == unknown}
    return ["".join(text[start:stop].split()) for start, stop in spans]


def check_unknown(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], where: str, limit: float, option: str,
                  note: Callable[[str], None] = print) -> Unknown:
    """Tell how much of `texts` the tokenizer does not know; UserError where it is more than the share `limit`.

    where: what a message begins with; option: what the caller names the limit by, empty where it cannot be set.
    """
    found = unknown_characters(tokenizer, texts)
    if not found.lost:
        return found
    pieces = ", ".join(repr(piece if len(piece) <= 30 else f"{piece[:30]}…") for piece in found.examples)
    line = (f"{where}: {found.share:.2%} of the characters ({found.lost:,} of {found.characters:,}) are unknown to the "
            f"tokenizer, alone or as a part of a word ({pieces})")
    if found.share > limit:
        raise UserError(f"{line}, more than {limit:.1%}. {_remedy(tokenizer)}"
                        + (f", or set {option} higher if they may be lost." if option else "."))
    note(line)
    return found


def _remedy(tokenizer: PreTrainedTokenizerBase) -> str:
    if type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece":
        return ("WordPiece needs blanks between words, words of up to 100 characters, and every character in its "
                "vocabulary: use a tokenizer with algorithm unigram or byte-level-bpe, which do not, or a larger "
                "vocab_size")
    return "Use a tokenizer with algorithm byte-level-bpe, which knows every text, or one with a larger vocab_size"


def evaluate_tokenizer(tokenizer: PreTrainedTokenizerBase, paragraphs: Sequence[str]) -> dict[str, float]:
    """Measures over `paragraphs`:

    bytes_per_token of UTF-8; tokens_per_word (fertility: tokens that touch a word, by words); unknown_rate, of
    tokens; unknown_characters, the share of characters that these stand for; whole_words, the share of words that are
    one token; round_trip, the share of paragraphs that decode to what they were; vocabulary_used, of the ordinary
    entries; megabytes_per_second, on one thread.
    """
    backend = plain_backend(tokenizer)
    backend.encode_special_tokens = True
    size = sum(len(paragraph.encode()) for paragraph in paragraphs)
    tokens = unknown = lost = words = touching = whole = exact = 0
    used = np.zeros(len(tokenizer), bool)
    encodings = backend.encode_batch(list(paragraphs), add_special_tokens=False)
    for paragraph, encoding in zip(paragraphs, encodings, strict=True):
        ids = np.asarray(encoding.ids, np.int64)
        tokens += len(ids)
        used[ids] = True
        if tokenizer.unk_token_id is not None:
            unknown += int((ids == tokenizer.unk_token_id).sum())
            lost += sum(map(_length, _unknown_pieces(paragraph, encoding, tokenizer.unk_token_id)))
        exact += tokenizer.decode(encoding.ids, clean_up_tokenization_spaces=False) == paragraph
        spans = np.asarray([match.span() for match in WORD.finditer(paragraph)], np.int64).reshape(-1, 2)
        starts, stops = np.asarray(encoding.offsets, np.int64).reshape(-1, 2).T
        # Tokens of a word: those that end after it starts and start before it ends.
        first = np.searchsorted(stops, spans[:, 0], "right")
        past = np.searchsorted(starts, spans[:, 1], "left")
        words += len(spans)
        touching += int((past - first).sum())
        whole += int((past - first == 1).sum())
    used[tokenizer.all_special_ids] = False
    return {"bytes_per_token": size / max(1, tokens), "tokens_per_word": touching / max(1, words),
            "unknown_rate": unknown / max(1, tokens),
            "unknown_characters": lost / max(1, sum(map(_length, paragraphs))), "whole_words": whole / max(1, words),
            "round_trip": exact / max(1, len(paragraphs)),
            "vocabulary_used": float(used.sum()) / max(1, len(tokenizer) - len(set(tokenizer.all_special_ids))),
            "megabytes_per_second": size / 1e6 / _fastest(backend, paragraphs)}


class TokenizerComparison(Viewed, dict):
    """Tokenizers by name, each with what `evaluate_tokenizer` measured; a table."""

    def _shown(self) -> View:
        rows = [(name, values["vocabulary"], values["bytes_per_token"], values["tokens_per_word"],
                 100 * values["unknown_characters"], 100 * values["whole_words"], 100 * values["round_trip"])
                for name, values in self.items()]
        heads = ("tokenizer", "vocabulary", "bytes a token", "tokens a word", "unknown %", "words whole %",
                 "exactly back %")
        return View(f"{counted(len(self), 'tokenizer')} on the same text", {}, heads, rows,
                    "More bytes a token: shorter sequences. Fewer tokens a word: words less cut.")


def compare_tokenizers(tokenizers: Mapping[str, PreTrainedTokenizerBase], texts: Iterable[str],
                       characters: int = 1_000_000) -> TokenizerComparison:
    """`evaluate_tokenizer` of each, on the same paragraphs of the texts: so many characters, evenly from all."""
    paragraphs = sample_paragraphs(texts, characters)
    return TokenizerComparison({name: {"vocabulary": len(tokenizer), **evaluate_tokenizer(tokenizer, paragraphs)}
                                for name, tokenizer in tokenizers.items()})


def _fastest(backend, paragraphs: Sequence[str], repeats: int = 3) -> float:
    """Seconds of the quickest of a few encodings of at most 200,000 characters, scaled to all of them."""
    part, characters = [], 0
    for paragraph in paragraphs:
        part.append(paragraph)
        characters += len(paragraph)
        if characters > 200_000:
            break
    best = float("inf")
    with one_thread():
        for _ in range(repeats):
            began = time.perf_counter()
            for start in range(0, len(part), 100):
                backend.encode_batch_fast(part[start:start + 100], add_special_tokens=False)
            best = min(best, time.perf_counter() - began)
    return best * sum(map(len, paragraphs)) / max(1, characters)
