"""Tokenizers from YAML specs, trained on the train split; `AutoTokenizer.from_pretrained` needs nothing more.

WordPiece (Wu et al. 2016; Devlin et al. 2018), BPE (Sennrich et al. 2016), byte-level BPE (Radford et al. 2019),
Unigram (Kudo 2018), bytes and characters. The same spec on the same text gives the same bytes: where the tokenizers
library's trainers depend on the order of a hash table, theirs is fixed (WordPiece) or replaced (Unigram).
"""

import hashlib
import io
import itertools
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from toolkit import config as configuration
from toolkit.errors import UserError
from toolkit.tokenization.normalizer import (
    Normalizer,
    count_words,
    fallen_together,
    has_joiners,
    share_with_vowel_marks,
)

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<unk>"
LARGEST_ALPHABET = 1000  # characters that WordPiece, BPE and Unigram know; rarer ones are unknown

PRE_TOKENIZERS = {  # the first is the default
    "wordpiece": ("bert", "whitespace"), "bpe": ("metaspace-punctuation", "metaspace"),
    # (kept from marks, Unigram would rather give blanks tokens of their own: a fifth more tokens on documentation)
    "unigram": ("metaspace", "metaspace-punctuation"), "byte-level-bpe": ("byte-level",), "byte": ("byte-level",),
    "character": ("characters",),
}
METASPACE_WORDS = {"metaspace": r"\n+| ?[^\s]+|\s",
                   "metaspace-punctuation": r"\n+| ?[^\s\p{P}\p{S}]+| ?[\p{P}\p{S}]|\s"}
_BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
_GPT = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}


@dataclass
class TokenizerSpec:
    algorithm: Literal["wordpiece", "bpe", "byte-level-bpe", "unigram", "byte", "character"]
    """How text is cut. Byte-level BPE and bytes know every text; the others have an unknown token."""
    vocab_size: int | None = None
    """Entries, special tokens included. For characters the most there may be; bytes are always 256 and the specials."""
    normalizer: Literal["none", "nfc", "nfkc", "bert"] | None = None
    """What is done to the text first: BERT's cleaning (blanks, control and Chinese characters), Unicode forms, nothing.
    Default: bert for wordpiece, none for the others, which then give back every text they know exactly."""
    lowercase: bool = False
    """Lower-case first."""
    strip_accents: bool | None = None
    """Drop all combining marks: é becomes e, and Hindi and Thai lose vowels. Default: where the normalizer is bert and
    lowercase is set, as in BERT's "uncased", unless the corpus needs them: they are vowels there, or more than
    max_merged_words of its words would become equal."""
    max_merged_words: float = 0.02
    """The share of the corpus' words that normalising may make equal to another word, beyond upper and lower case."""
    pre_tokenizer: Literal["bert", "whitespace", "metaspace-punctuation", "metaspace", "byte-level",
                           "characters"] | None = None
    """Where words end, which no token crosses. bert: blanks and each punctuation mark; whitespace: blanks and runs of
    punctuation; metaspace: before blanks, which are kept; metaspace-punctuation: there and at each punctuation mark;
    byte-level: GPT-2's pattern. Default: by algorithm."""
    split_digits: bool = False
    """Every digit a token of its own, so that numbers are written as they are read."""
    special_tokens: Literal["bert", "gpt"] | None = None
    """bert: [PAD] [UNK] [CLS] [SEP] [MASK], and the template of a pair; gpt: <|endoftext|>, and <unk> where needed.
    Default: bert for wordpiece, gpt for the others."""
    additional_special_tokens: list[str] = field(default_factory=list)
    """More tokens that are never cut, such as <|user|>."""
    min_frequency: int = 2
    """WordPiece, BPE: pairs seen less often are not merged."""
    max_characters: int = 100_000_000
    """The most that training reads; of a larger corpus it reads documents chosen by hash, up to this."""
    max_characters_per_document: int = 1_000_000
    """The most that training reads of one document, from its start."""
    model_max_length: int = 512
    """Told to whoever loads the tokenizer."""


def is_spec(source: str) -> bool:
    """Whether a tokenizer is named by its spec, to be trained; otherwise by a directory or hub id."""
    return source.endswith((".yaml", ".yml"))


def read_spec(path: str | Path) -> TokenizerSpec:
    """A spec from `tokenizers/*.yaml`, its defaults filled in."""
    values = configuration.read_yaml(path)
    if values.get("algorithm") == "series-bins":
        raise UserError(f"{path}: series-bins cuts time series, not text. Name series.sources in a configuration of "
                        f"make pretrain-gpt, or another spec.")
    spec = configuration.from_dict(TokenizerSpec, values, str(path))
    possible = PRE_TOKENIZERS[spec.algorithm]
    spec.pre_tokenizer = spec.pre_tokenizer or possible[0]
    spec.normalizer = spec.normalizer or ("bert" if spec.algorithm == "wordpiece" else "none")
    spec.special_tokens = spec.special_tokens or ("bert" if spec.algorithm == "wordpiece" else "gpt")
    if spec.pre_tokenizer not in possible:
        raise UserError(f"{path}: pre_tokenizer is '{spec.pre_tokenizer}'; {spec.algorithm} takes "
                        f"{' or '.join(possible)}.")
    specials = {*special_tokens(spec).values(), *spec.additional_special_tokens}
    smallest = len(specials) + (256 if "byte" in spec.algorithm else 1)
    if spec.vocab_size is None:
        if spec.algorithm != "byte":
            raise UserError(f"{path}: 'vocab_size' is missing, which {spec.algorithm} needs.")
        spec.vocab_size = smallest
    if spec.vocab_size < smallest or (spec.algorithm == "byte" and spec.vocab_size != smallest):
        raise UserError(f"{path}: vocab_size is {spec.vocab_size}; {spec.algorithm} with these special tokens needs "
                        f"{'exactly' if spec.algorithm == 'byte' else 'at least'} {smallest}.")
    return spec


def special_tokens(spec: TokenizerSpec) -> dict[str, str]:
    """transformers' names of the special tokens → the tokens."""
    if spec.special_tokens == "bert":
        return dict(_BERT)
    return dict(_GPT) if "byte" in spec.algorithm else {**_GPT, "unk_token": UNKNOWN}


class VocabularyTooLarge(UserError):
    """The corpus cannot give as many entries as the spec asks for, but `found`."""

    def __init__(self, message: str, found: int):
        super().__init__(message)
        self.found = found


class TrainingSample:
    """What a trainer sees of `texts`, in paragraphs: within the bounds of the spec, the same on every pass."""

    def __init__(self, texts: Iterable[str], spec: TokenizerSpec, total_characters: int | None = None):
        self.texts, self.spec = texts, spec
        self.share = min(1.0, spec.max_characters / total_characters) if total_characters else 1.0

    def __iter__(self) -> Iterator[str]:
        left = self.spec.max_characters
        for text in self.texts:
            text = text[:min(left, self.spec.max_characters_per_document)]
            draw = hashlib.blake2b(text[:1000].encode(), digest_size=8).digest() if self.share < 1 else bytes(8)
            if int.from_bytes(draw, "big") < self.share * 2**64:
                left -= len(text)
                # Cut at blank lines, so that a trainer never holds more than a paragraph at a time.
                yield from re.findall(r"(?s).+?(?:\n\n|$)", text)
            if left <= 0:
                break


def train_tokenizer(spec: TokenizerSpec, texts: Iterable[str], where: str = "spec", progress: bool = True,
                    sample: Iterable[str] | None = None, note: Callable[[str], None] = print
                    ) -> PreTrainedTokenizerFast:
    """Train on texts, which are passed over more than once; `where` names the spec in errors.

    On `sample` (default: all texts) is counted which words it makes equal. `note` is told; UserError where these are
    more than the spec allows.
    """
    progress = progress and sys.stderr.isatty()  # where there is no terminal, the library's bars become empty lines
    sample = texts if sample is None else sample
    special = special_tokens(spec)
    unknown = special.get("unk_token")
    specials = list(dict.fromkeys([*special.values(), *spec.additional_special_tokens]))
    tokenizer = Tokenizer(_untrained(spec.algorithm, unknown))
    if normalizer := _with_blank_of_masks(spec, _normalizer(spec, sample, where, note)):
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = _pre_tokenizer(spec)
    tokenizer.decoder = {"wordpiece": decoders.WordPiece(), "byte-level-bpe": decoders.ByteLevel(),
                         "byte": decoders.ByteLevel(), "character": decoders.Fuse()
                         }.get(spec.algorithm, decoders.Metaspace(prepend_scheme="never"))
    _fit(tokenizer, spec, texts, specials, unknown, where, progress)
    if len(tokenizer.get_vocab()) < spec.vocab_size and spec.algorithm != "character":
        found = len(tokenizer.get_vocab())
        raise VocabularyTooLarge(
            f"{where}: vocab_size is {spec.vocab_size}, but the corpus gives only {found} entries with min_frequency "
            f"{spec.min_frequency}. Set vocab_size to {found} or less, or give more text.", found)
    names = ["input_ids", "attention_mask"]
    if spec.special_tokens == "bert":
        ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ids)
        names = ["input_ids", "token_type_ids", "attention_mask"]  # transformers would leave the types out
    extra = {"additional_special_tokens": spec.additional_special_tokens} if spec.additional_special_tokens else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=spec.model_max_length,
                                   model_input_names=names, clean_up_tokenization_spaces=False, **special, **extra)


# --- the parts of a tokenizer -------------------------------------------------------------------------------------


def _untrained(algorithm: str, unknown: str | None) -> models.Model:
    if algorithm == "wordpiece":
        return models.WordPiece(unk_token=unknown)
    if algorithm == "unigram":
        return models.Unigram()
    if algorithm == "character":
        return models.WordLevel(unk_token=unknown)
    return models.BPE(unk_token=unknown) if unknown else models.BPE()


def _normalizer(spec: TokenizerSpec, sample: Iterable[str], where: str, note: Callable[[str], None]
                ) -> normalizers.Normalizer | None:
    """As the spec says; what it leaves open, as the words of the corpus want it."""
    if not (spec.normalizer != "none" or spec.lowercase or spec.strip_accents):
        return None
    words = count_words(sample)
    bert, limit = spec.normalizer == "bert", spec.max_merged_words
    stripped = Normalizer(spec.normalizer, spec.lowercase, bert and spec.lowercase, bert and has_joiners(words))
    chosen = replace(stripped, strip_accents=stripped.strip_accents if spec.strip_accents is None
                     else spec.strip_accents)
    share, pairs = fallen_together(words, chosen)
    if spec.strip_accents is None and stripped.strip_accents:
        marked = share_with_vowel_marks(words)
        if max(share, marked) > limit:
            note(f"{where}: accents are kept, though lowercase is set: {marked:.1%} of the words have marks that are "
                 f"vowels, or would be torn apart; {share:.1%} would become equal to others{_examples(pairs)}. To drop "
                 f"them, set strip_accents to true and max_merged_words to more than that")
            chosen = replace(chosen, strip_accents=False)
            share, pairs = fallen_together(words, chosen)
    if share > limit:
        remedy = "strip_accents to false" if chosen.strip_accents else "normalizer to none or nfc"
        raise UserError(f"{where}: normalising makes {share:.1%} of the corpus' words equal to others"
                        f"{_examples(pairs)}; max_merged_words is {limit:g}. Set {remedy}, or max_merged_words to more "
                        f"than {share:.3f} where that is meant.")
    if pairs:
        note(f"{where}: normalising makes {round(share * words.total()):,} of {words.total():,} words equal to others"
             f"{_examples(pairs)}")
    return chosen.built()


def _with_blank_of_masks(spec: TokenizerSpec, normalizer: normalizers.Normalizer | None
                         ) -> normalizers.Normalizer | None:
    """Where a word brings the blank before it with it, so does the mask that stands for one, as in RoBERTa.

    A text is cut at its special tokens first, so that the blank before one ends a piece. (RoBERTa's `lstrip` would
    take all white space, of which line ends have tokens of their own, and name the token " [MASK]".)
    """
    if spec.special_tokens != "bert" or spec.algorithm not in ("bpe", "unigram", "byte-level-bpe"):
        return normalizer
    blank = normalizers.Replace(Regex(r" \z"), "")
    return normalizers.Sequence([normalizer, blank]) if normalizer else blank


def _examples(pairs: list[tuple[str, str]]) -> str:
    return " (" + ", ".join(f"{rarer!r} and {common!r}" for rarer, common in pairs) + ")" if pairs else ""


def _pre_tokenizer(spec: TokenizerSpec) -> pre_tokenizers.PreTokenizer:
    steps = [pre_tokenizers.Digits(individual_digits=True)] if spec.split_digits else []
    if spec.pre_tokenizer in METASPACE_WORDS:
        # A blank opens the word, or the mark, after it. Nothing is added, so that decoding is exact.
        steps += [pre_tokenizers.Split(Regex(METASPACE_WORDS[spec.pre_tokenizer]), "isolated"),
                  pre_tokenizers.Metaspace(prepend_scheme="never", split=False)]
    elif spec.pre_tokenizer == "byte-level":
        steps += [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    elif spec.pre_tokenizer == "characters":
        steps += [pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")]
    else:
        steps += [pre_tokenizers.BertPreTokenizer() if spec.pre_tokenizer == "bert" else pre_tokenizers.Whitespace()]
    return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def _fit(tokenizer: Tokenizer, spec: TokenizerSpec, texts: Iterable[str], specials: list[str], unknown: str | None,
         where: str, progress: bool) -> None:
    common = {"vocab_size": spec.vocab_size, "show_progress": progress, "special_tokens": specials}
    if spec.algorithm == "wordpiece":
        _fit_wordpiece(tokenizer, spec, texts, specials, unknown, progress)
    elif spec.algorithm == "unigram":
        _fit_unigram(tokenizer, spec, texts, specials, unknown, where)
    elif spec.algorithm == "byte":
        vocabulary = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer.model = models.BPE({token: number for number, token in enumerate(vocabulary)}, [])
        tokenizer.add_special_tokens(specials)
    elif spec.algorithm == "character":
        tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(min_frequency=1, **common))
    elif spec.algorithm == "byte-level-bpe":
        tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
            min_frequency=spec.min_frequency, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), **common))
    else:
        tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
            min_frequency=spec.min_frequency, limit_alphabet=_alphabet_size(spec), **common))


def _alphabet_size(spec: TokenizerSpec) -> int:
    return min(LARGEST_ALPHABET, spec.vocab_size // 2)


def _fit_wordpiece(tokenizer: Tokenizer, spec: TokenizerSpec, texts: Iterable[str], specials: list[str],
                   unknown: str, progress: bool) -> None:
    # The trainer numbers the pieces "##x" in the order of a hash table, and ties between merges by those numbers, so
    # that no two trainings agree. Given as the first entries, in order, they make it deterministic.
    counts = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text)
    letters = ((-count, character) for character, count in counts.items() if character.strip())
    alphabet = [character for _, character in sorted(letters)[:LARGEST_ALPHABET]]
    inside, idle = alphabet, []
    if 2 * len(alphabet) > spec.vocab_size - len(specials):
        alphabet, inside, idle = _only_needed(tokenizer, texts, alphabet, spec.vocab_size - len(specials))
    scratch = Tokenizer(models.WordPiece(unk_token=unknown))
    if tokenizer.normalizer:
        scratch.normalizer = tokenizer.normalizer
    scratch.pre_tokenizer = tokenizer.pre_tokenizer
    scratch.train_from_iterator(texts, trainers.WordPieceTrainer(
        vocab_size=spec.vocab_size + len(idle), min_frequency=spec.min_frequency, show_progress=progress,
        special_tokens=[*specials, *(f"##{character}" for character in sorted(inside))],
        initial_alphabet=sorted(alphabet), limit_alphabet=len(alphabet)))
    known = scratch.get_vocab()
    kept = sorted(known.keys() - set(idle), key=known.get)
    tokenizer.model = models.WordPiece({token: number for number, token in enumerate(kept)}, unk_token=unknown)
    tokenizer.add_special_tokens(specials)


def _only_needed(tokenizer: Tokenizer, texts: Iterable[str], alphabet: list[str], room: int
                 ) -> tuple[list[str], list[str], list[str]]:
    """Of an alphabet, the most frequent first, what fits into `room` entries: which characters, which of them as
    "##x", and which of them never begin a word and so need no entry of their own.
    """
    first, later = set(), set()
    for text in texts:
        text = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text):
            first.add(word[0])
            later.update(word[1:])
    sizes = itertools.accumulate((character in first) + (character in later) for character in alphabet)
    fitting = [character for character, size in zip(alphabet, sizes, strict=True) if size <= room]
    return (fitting, [character for character in fitting if character in later],
            [character for character in fitting if character not in first])


def _fit_unigram(tokenizer: Tokenizer, spec: TokenizerSpec, texts: Iterable[str], specials: list[str], unknown: str,
                 where: str) -> None:
    # The tokenizers library sums in the order of a hash table and never gives the same scores twice; sentencepiece
    # does, for a fixed number of threads. It gets words with their counts, cut by our own pre-tokeniser.
    import sentencepiece

    words: Counter[str] = Counter()
    for text in texts:
        text = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    ranked = sorted(characters, key=lambda character: (-characters[character], character))
    # Blanks inside a word (tabs, line ends) would break its table of words, so they travel under other names.
    blanks = [character for character in ranked if not character.strip()]
    stand_ins = {ord(blank): chr(0x100000 + number) for number, blank in enumerate(blanks)}
    back = {stand_in: chr(blank) for blank, stand_in in stand_ins.items()}
    known = set(ranked[:_alphabet_size(spec)])
    with tempfile.TemporaryDirectory() as folder:
        table, trained = Path(folder) / "words.tsv", io.BytesIO()
        with open(table, "w", encoding="utf-8") as file:
            file.writelines(f"{word.translate(stand_ins)}\t{count}\n" for word, count in sorted(words.items())
                            if known.issuperset(word))
        if not table.stat().st_size:
            raise UserError(f"{where}: the corpus gives no words to train on. Give more text.")
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=str(table), input_format="tsv", model_writer=trained, model_type="unigram",
                vocab_size=spec.vocab_size - len(specials) + 1, hard_vocab_limit=False, character_coverage=1.0,
                normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
                split_by_unicode_script=False, split_by_number=False, allow_whitespace_only_pieces=True,
                bos_id=-1, eos_id=-1, pad_id=-1, unk_id=0, num_threads=4, minloglevel=2)
        except RuntimeError as error:
            raise UserError(f"{where}: Unigram cannot be trained with vocab_size {spec.vocab_size} on this corpus "
                            f"({str(error).splitlines()[-1].strip()}).") from None
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    pieces = [(re.sub("[\U00100000-\U0010ffff]", lambda match: back[match[0]], model.id_to_piece(number)),
               model.get_score(number)) for number in range(1, model.get_piece_size())]
    # Only the unknown token is part of the model: a text that spells another one must not become it.
    tokenizer.model = models.Unigram([(unknown, 0.0), *pieces], unk_id=0, byte_fallback=False)
    tokenizer.add_special_tokens(specials)
