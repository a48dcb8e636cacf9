"""The built-in task, on the built-in corpus: which package does a passage of documentation describe?"""

from pathlib import Path

import numpy as np

from toolkit.data.text.corpus import read_documents
from toolkit.data.text.examples import LabelledText, split_off
from toolkit.data.text.python_docs import PACKAGES, mask_package_names
from toolkit.errors import UserError


def documentation_passages(corpus_file: Path, passage: int = 250, per_document: int = 8) -> LabelledText:
    """The task on a prepared split: passages of about `passage` characters, labelled by package.

    A passage is whole paragraphs in a row, with every package's names and aliases masked. At most `per_document`
    come from one module, spread over it. Train on passages of train.jsonl, test on validation.jsonl: no module is in
    both, and the pretrained models have seen neither text nor label of the latter.
    """
    texts, labels = [], []
    for document in read_documents(corpus_file):
        if document.source not in PACKAGES:
            continue
        passages, current = [], ""
        for paragraph in document.text.split("\n\n"):
            current = f"{current} {paragraph}".strip()
            if len(current) >= passage:
                passages.append(mask_package_names(current[: 2 * passage]))
                current = ""
        for position in np.linspace(0, len(passages) - 1, min(per_document, len(passages))).round().astype(int):
            texts.append(passages[position])
            labels.append(PACKAGES.index(document.source))
    return LabelledText(texts, np.asarray(labels, np.int64), PACKAGES)


def documentation_splits(corpus_dir: str) -> tuple[LabelledText, LabelledText, LabelledText]:
    """Train, validation and test of a prepared corpus."""
    if not Path(corpus_dir, "corpus/train.jsonl").exists():
        raise UserError(f"{corpus_dir}: no prepared corpus here (corpus/train.jsonl is missing). Give the data_dir of "
                        f"a pretraining on python-docs.")
    train, validation = split_off(documentation_passages(Path(corpus_dir) / "corpus/train.jsonl"), 0.05)
    test = documentation_passages(Path(corpus_dir) / "corpus/validation.jsonl")
    # At most 100 a class: the two largest packages would otherwise be half of the test.
    chosen = [np.flatnonzero(test.labels == label)[:100] for label in range(test.classes)]
    return train, validation, test.select(np.concatenate(chosen))
