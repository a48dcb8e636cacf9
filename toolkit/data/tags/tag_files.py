"""Sentences with a tag a word: from CoNLL's columns, lists or spans in .jsonl, tables with a row a word, the hub."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from toolkit.data.parts import held_out
from toolkit.data.tables.rows import whole_rows, with_own_splits
from toolkit.data.tables.sources import Reading, file_kind, list_parts, read_lines
from toolkit.data.tags.conll import read_conll
from toolkit.data.tags.python_source import python_lines
from toolkit.data.tags.settings import TagsSection
from toolkit.data.tags.tagged import Offsets, TaggedSentences, joined
from toolkit.data.tags.word_bounds import spans_of_words, words_in
from toolkit.errors import UserError, did_you_mean
from toolkit.metrics.tagging import OUTSIDE, as_bio, scheme_of, spans_of

Note = Callable[[str], None]
TagParts = tuple[TaggedSentences, TaggedSentences, TaggedSentences]
"""Train, validation and test."""
BUILT_IN = {"train": 6000, "validation": 600, "test": 1000}
"""Lines of each part of the built-in set."""
_WORDS, _TAGS = ("words", "tokens"), ("tags", "ner_tags", "upos", "pos_tags", "labels")
_SPANS = ("spans", "entities", "label")
_LONG = {"sentence": ("sentence", "sentence_id", "Sentence #"), "word": ("word", "token", "Word"),
         "tag": ("tag", "label", "Tag")}
"""What columns are called where nothing is said, the first that is there."""


def load_tags(data: TagsSection, note: Note = lambda line: None) -> TagParts:
    """Train, validation and test. `note` is told what was decided on the way, and how often."""
    at = data.section
    if not data.train:
        if data.validation or data.test:
            role = "validation" if data.validation else "test"
            raise UserError(f"{at}train is empty, and {at}{role} is not. Give files of tagged sentences to learn from.")
        return tuple(python_lines(role, count) for role, count in BUILT_IN.items())
    if not 0 < data.validation_share < 0.5:
        raise UserError(f"{at}validation_share is {data.validation_share}; it must lie between 0 and 0.5.")
    if data.max_sentences < 0:
        raise UserError(f"{at}max_sentences is {data.max_sentences}; give a number of sentences, or 0: all of them.")
    data = with_own_splits(data, note)
    parts = {role: _checked(read_tagged(getattr(data, role), data, role, note), role, data)
             for role in ("train", "validation", "test") if getattr(data, role)}
    parts = _in_one_scheme(parts, data, note)
    if len(kinds := parts["train"].kinds()) < 2:
        raise UserError(f"{' '.join(data.train)}: every word has the tag {kinds[0]!r}: there is nothing to tell apart. "
                        f"Name the column of the tags ({at}tag_column).")
    if 0 < data.max_sentences < len(parts["train"]):
        note(f"train: the first {data.max_sentences:,} of {len(parts['train']):,} sentences ({at}max_sentences)")
        parts["train"] = parts["train"].select(range(data.max_sentences))
    for role in ("validation", "test"):
        if role not in parts:
            parts["train"], parts[role] = _split_off(parts["train"], data, role, note)
    _tell_of_unseen(parts, parts["train"].kinds(), note)
    return parts["train"], parts["validation"], parts["test"]


def read_tagged(files: list[str], data: TagsSection, role: str = "train", note: Note = lambda line: None
                ) -> TaggedSentences:
    """All sentences of the files, their tags as they stand there."""
    reading = Reading(encoding=data.encoding, options=data.section, note=note)
    rows, counts = [], Counter()
    for file in files:
        rows += _sentences(file, role, data, reading, counts)
    if counts["cut"]:
        note(f"{role}: {counts['cut']:,} spans begin or end within a word, and are widened to whole words")
    if counts["outside"]:
        note(f"{role}: {counts['outside']:,} spans begin or end with blanks, which are left off")
    return TaggedSentences(*([row[part] for row in rows] for part in range(4)))


_Row = tuple[str, Offsets, list[str], str]
"""A sentence: its text, where its words stand in it, their tags, and where it begins in the file."""


def _sentences(file: str, role: str, data: TagsSection, reading: Reading, counts: Counter) -> Iterator[_Row]:
    if file.startswith("hub:"):
        yield from _records(file, role, data, reading, counts)
        return
    for part in list_parts(file, data.section + role):
        if part.path is None:
            raise UserError(f"{file}: is a corpus, and has no tags ({data.section}{role}).")
        kind = file_kind(part.path)
        if kind in (".jsonl", ".parquet"):
            yield from _records(str(part.path), role, data, reading, counts)
        elif kind == ".csv" or (kind == ".tsv" and _has_names(part.path, data, reading)):
            for place, words, tags in _rows_of_words(str(part.path), role, data, reading):
                yield *joined(words), tags, place
        else:
            for place, words, tags in read_conll(part.path, data.word_column, data.tag_column, data.section, reading):
                yield *joined(words), tags, place


def _records(source: str, role: str, data: TagsSection, reading: Reading, counts: Counter) -> Iterator[_Row]:
    """A row a sentence: lists of words and of tags; or a text and spans of its letters."""
    for place, record in whole_rows(source, role, {}, data.section, reading):
        as_lists = any(name in record for name in ([data.word_column] if data.word_column else _WORDS))
        if "text" in record and not as_lists:
            yield *_from_spans(record, place, data, counts), place
            continue
        pair = []
        for key, names in (("word_column", _WORDS), ("tag_column", _TAGS)):
            column = _column(record, getattr(data, key), names, key, place, data)
            cells = record[column]
            if not isinstance(cells, list) or not all(isinstance(cell, str) for cell in cells):
                raise UserError(f"{place}: '{column}' is no list of texts. Write one for each word, or name another "
                                f"column ({data.section}{key}).")
            pair.append(cells)
        if len(pair[0]) != len(pair[1]):
            raise UserError(f"{place}: has {len(pair[0]):,} words and {len(pair[1]):,} tags. Each word has one.")
        yield *joined(pair[0]), pair[1], place


def _from_spans(record: dict, place: str, data: TagsSection, counts: Counter) -> tuple[str, Offsets, list[str]]:
    text, column = record["text"], _column(record, data.tag_column, _SPANS, "tag_column", place, data)
    if not isinstance(text, str):
        raise UserError(f"{place}: 'text' is {type(text).__name__}, not text.")
    spans = record[column]
    if not isinstance(spans, list):
        raise UserError(f"{place}: '{column}' is no list of spans. Write [{{\"start\": 0, \"end\": 5, \"label\": "
                        f"\"person\"}}], or [[0, 5, \"person\"]].")
    found = []
    for span in spans:
        start, stop, kind = ([span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict)
                             else span if isinstance(span, list) and len(span) == 3 else (None, None, None))
        if type(start) is not int or type(stop) is not int or not isinstance(kind, str) or not kind or not (
                0 <= start < stop <= len(text)):
            raise UserError(f"{place}: {span!r:.80} is no span of a text of {len(text):,} letters. Give its start, its "
                            f"end behind it, and a label.")
        inner = text[start:stop]
        first, last = start + len(inner) - len(inner.lstrip()), stop - len(inner) + len(inner.rstrip())
        counts["outside"] += (first, last) != (start, stop)
        found.append((first, max(last, first), kind))
    words = words_in(text)
    in_words, cut = spans_of_words(found, words, place)
    counts["cut"] += cut
    return text, words, as_bio(in_words, len(words))


def _rows_of_words(source: str, role: str, data: TagsSection, reading: Reading
                   ) -> Iterator[tuple[str, list[str], list[str]]]:
    """A row a word; where the sentence's cell changes, and is not empty, another sentence begins."""
    begun, last, words, tags, columns = "", None, [], [], None
    for place, record in whole_rows(source, role, {}, data.section, reading):
        columns = columns or [_column(record, getattr(data, f"{key}_column"), names, f"{key}_column", place, data)
                              for key, names in _LONG.items()]
        sentence, word, tag = (record[column] for column in columns)
        if not word or not tag:
            raise UserError(f"{place}: the {'word' if not word else 'tag'} is empty. Repair the row.")
        if words and sentence and sentence != last:
            yield begun, words, tags
            words, tags = [], []
        begun, last = begun if words else place, sentence or last
        words.append(word)
        tags.append(tag)
    if words:
        yield begun, words, tags


def _has_names(path: Path, data: TagsSection, reading: Reading) -> bool:
    """Whether the first line of a .tsv names a column of words and one of tags; else its columns are CoNLL's."""
    for _, line in read_lines(path, reading):
        cells = [cell.strip().strip('"') for cell in line.split("\t")]
        return all(any(name in cells for name in ([given] if given else names)) for given, names in (
            (data.word_column, _LONG["word"]), (data.tag_column, _LONG["tag"])))
    return False


def _column(record: dict, given: str, names: tuple[str, ...], key: str, place: str, data: TagsSection) -> str:
    if given and given not in record:
        raise UserError(f"{place}: has no column '{given}' ({data.section}{key}).{did_you_mean(given, record)}")
    found = given or next((name for name in names if name in record), None)
    if found is None:
        raise UserError(f"{place}: none of its columns is {' or '.join(names[:3])}; it has "
                        f"{', '.join(map(str, list(record)[:8]))}. Name one ({data.section}{key}).")
    return found


# --- all parts together --------------------------------------------------------------------------------------------


def _checked(sentences: TaggedSentences, role: str, data: TagsSection) -> TaggedSentences:
    kept = [number for number, words in enumerate(sentences.words) if words]
    if not kept:
        raise UserError(f"{' '.join(getattr(data, role))}: has no words ({data.section}{role}).")
    return sentences.select(kept)


def _in_one_scheme(parts: dict[str, TaggedSentences], data: TagsSection, note: Note) -> dict[str, TaggedSentences]:
    """All parts as BIO where the tags of train mark spans; what broke the scheme is told."""
    found = scheme_of(parts["train"].tags)
    if data.scheme == "none" or (data.scheme == "auto" and not found.scheme):
        return parts
    if not found.scheme:
        kinds = ", ".join(repr(tag) for tag in parts["train"].kinds()[:6])
        raise UserError(f"{' '.join(data.train)}: the tags {kinds} mark no spans, and {data.section}scheme is bio. "
                        f"Tags of spans are O, B-name and I-name; set it to auto or none.")
    made = {}
    for role, sentences in parts.items():
        own = scheme_of(sentences.tags)
        if own.scheme in ("iob1", "bioes"):
            note(f"{role}: the tags are {own.scheme.upper()}, and are taken as BIO")
        broken = own.unopened * (own.scheme != "iob1") + own.unclosed
        if broken:
            note(f"{role}: {broken:,} of {own.spans:,} spans begin or end with a tag that cannot stand there, and are "
                 f"taken as spans all the same, the first in the sentence at {_first_broken(sentences)}")
        made[role] = sentences.with_tags([as_bio(spans_of(tags), len(tags)) for tags in sentences.tags])
    return made


def _first_broken(sentences: TaggedSentences) -> str:
    return next((place for place, tags in zip(sentences.places, sentences.tags, strict=True)
                 if (own := scheme_of([tags])).unopened or own.unclosed), sentences.places[0])


def _split_off(train: TaggedSentences, data: TagsSection, role: str, note: Note
               ) -> tuple[TaggedSentences, TaggedSentences]:
    """Sentences evenly spread over the file; whoever has the same words as one that is held out is held out too."""
    kept, out = held_out([tuple(words) for words in train.words], data.validation_share, int(role == "test"))
    if not len(out) or not len(kept):
        raise UserError(f"{' '.join(data.train)}: has too few sentences ({len(train)}) to split {role} off. Give "
                        f"{data.section}{role}, or more sentences.")
    note(f"{role}: {len(out):,} of {len(train):,} training sentences, evenly spread, since {data.section}{role} is "
         f"empty")
    return train.select(kept), train.select(out)


def _tell_of_unseen(parts: dict[str, TaggedSentences], kinds: list[str], note: Note) -> None:
    """Tags that training never shows, which no model can give; and sentences that it does."""
    known, seen = {*kinds, OUTSIDE}, {tuple(words) for words in parts["train"].words}
    for role in ("validation", "test"):
        sentences = parts[role]
        unseen = Counter(tag for tags in sentences.tags for tag in tags if tag not in known)
        if unseen:
            first = next(place for place, tags in zip(sentences.places, sentences.tags, strict=True)
                         if not known.issuperset(tags))
            note(f"{role}: {unseen.total():,} words have a tag that training never shows "
                 f"({', '.join(sorted(unseen)[:4])}), the first in the sentence at {first}: they count as wrong")
        shared = sum(tuple(words) in seen for words in sentences.words)
        if shared:
            note(f"{role}: {shared:,} of {len(sentences):,} sentences are in train too, and flatter the model")
