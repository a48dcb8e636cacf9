"""What is done to a text before it is cut, as far as the corpus says: accents are no vowels, joiners are no dirt.

BERT's cleaning was made for English. Its accents are all combining marks, also those that are the vowels of Hindi or
the tones of Thai; its control characters are also the joiners (U+200C, U+200D) that part words in Persian and shape
letters in Malayalam and Sinhala. So the words of the corpus are counted before and after.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Regex, normalizers

MEASURED = 5_000_000
"""Characters on which is counted what a tokenizer does to a corpus."""

_WORD = re.compile(r"[^\s!-/:-@\[-`{-~\u00a1\u00ab\u00b7\u00bb\u00bf\u0964\u0965\u2010-\u2027\u3000-\u303f]+")
_JOINED = re.compile("(?s)(.)[\u200c\u200d](?=(.))")
_CONTROL = r"[[\p{Cc}\p{Cf}\p{Co}\x{fffd}]&&[^\t\n\r\x{200c}\x{200d}]]"
"""What BERT's cleaning takes out, but for joiners."""


@dataclass(frozen=True)
class Normalizer:
    """What a spec says of it. `strip_accents` and `keep_joiners` may be left to the corpus."""

    kind: str
    lowercase: bool
    strip_accents: bool
    keep_joiners: bool = False

    def built(self) -> normalizers.Normalizer | None:
        if self.kind == "bert":
            # Lower-casing strips accents, if that is not forbidden: so says the file of every uncased BERT.
            strip = None if self.strip_accents == self.lowercase else self.strip_accents
            if not self.keep_joiners:
                return normalizers.BertNormalizer(lowercase=self.lowercase, strip_accents=strip)
            return normalizers.Sequence([
                normalizers.Replace(Regex(_CONTROL), ""),
                normalizers.BertNormalizer(clean_text=False, lowercase=self.lowercase, strip_accents=strip)])
        steps = {"none": [], "nfc": [normalizers.NFC()], "nfkc": [normalizers.NFKC()]}[self.kind]
        if self.strip_accents:
            steps += [normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()]
        steps += [normalizers.Lowercase()] if self.lowercase else []
        return normalizers.Sequence(steps) if steps else None


def count_words(texts: Iterable[str]) -> Counter[str]:
    """Runs without blanks and punctuation, which hold marks and joiners, as `WORD` of measure.py does not."""
    words: Counter[str] = Counter()
    for text in texts:
        words.update(_WORD.findall(text))
    return words


def has_joiners(words: Iterable[str]) -> bool:
    """Whether joiners stand between letters, as they do not in emoji."""
    return any("\u200c" in word or "\u200d" in word for word in words) and any(
        unicodedata.category(before)[0] in "LM" and unicodedata.category(after)[0] == "L"
        for word in words for before, after in _JOINED.findall(word))


def share_with_vowel_marks(words: Counter[str]) -> float:
    """The share of words with marks that make letters or syllables instead of accenting one: all but those of Latin
    and Greek, and й and its like. In Korean, it is the syllables that stripping accents would leave in pieces.
    """
    def has(word: str) -> bool:
        return not word.isascii() and any(
            character in "йїўЙЇЎ" or "\uac00" <= character <= "\ud7a3"
            or any(unicodedata.category(mark) == "Mn" and not "\u0300" <= mark <= "\u036f"
                   for mark in unicodedata.normalize("NFD", character)) for character in word)

    return sum(count for word, count in words.items() if has(word)) / max(1, words.total())


def fallen_together(words: Counter[str], normalizer: Normalizer) -> tuple[float, list[tuple[str, str]]]:
    """The share of words that another, more frequent one takes for itself when both are normalised, and the pairs that
    are most of it, the rarer word first. That upper case falls together with lower where the spec says so is no news.
    """
    built = normalizer.built()
    if built is None:
        return 0.0, []
    spellings: dict[str, Counter[str]] = {}
    for word, count in words.items():
        if not word.isascii():  # ASCII words fall together with others only
            spelling = unicodedata.normalize("NFC", word.lower() if normalizer.lowercase else word)
            spellings.setdefault(built.normalize_str(word), Counter())[spelling] += count
    for word, count in words.items():
        if word.isascii() and (word := word.lower() if normalizer.lowercase else word) in spellings:
            spellings[word][word] += count
    pairs: Counter[tuple[str, str]] = Counter()
    for found in spellings.values():
        (first, _), *others = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        pairs.update({(other, first): count for other, count in others})
    most = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return pairs.total() / max(1, words.total()), [pair for pair, _ in most[:3]]
