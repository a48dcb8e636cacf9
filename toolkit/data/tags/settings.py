"""Where tagged sentences stand; importing this takes nothing else."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal


@dataclass
class TagsSection:
    """Where sentences and their tags stand."""

    section: ClassVar[str] = "data."
    train: list[str] = field(default_factory=list)
    """Files of columns as CoNLL has them (.conll, .conllu, .txt, .iob; .gz and .zst too), .jsonl or .parquet with a
    list of words and one of tags, .jsonl with texts and spans of their letters, .csv or .tsv with a row a word, a glob
    or folder of these, or a data set on the hub, hub:owner/name[:configuration][#split], which gives its own
    validation and test too. Empty: lines of installed Python packages, each word tagged by what it is."""
    validation: list[str] = field(default_factory=list)
    """Empty: validation_share of the training sentences."""
    test: list[str] = field(default_factory=list)
    """Empty: as many again, of the training sentences."""
    validation_share: float = 0.1
    """Share of the training sentences, spread over them, that becomes validation, and test, where no file is given."""
    max_sentences: int = 0
    """The first so many of train; 0: all of them."""
    word_column: str = ""
    """Of CoNLL's columns a number, from 1 on, or a name, where the file gives names; of others a name. Empty: the
    first, FORM of CoNLL-U, or `words`, `tokens`, `word`."""
    tag_column: str = ""
    """The same. Empty: the last, UPOS of CoNLL-U, or `tags`, `ner_tags`, `tag` and their like."""
    sentence_column: str = ""
    """Of a table with a row a word: what is the same, or empty, as long as the sentence lasts. Empty: `sentence` and
    its like."""
    encoding: str = ""
    """Of text files that are not UTF-8 and have no byte-order mark: latin-1, cp1252, …"""
    scheme: Literal["auto", "bio", "none"] = "auto"
    """Whether tags mark spans: found from the tags, of which IOB1, BIOES and BILOU become BIO; bio: they must; none:
    they are taken as they stand."""
