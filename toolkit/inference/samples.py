"""What a pretrained model writes, on held-out text: blanks that it fills, beginnings that it goes on from."""

import re
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from toolkit.data.text.corpus import read_documents, sentences
from toolkit.inference.generation import fill_masks, generate, open_model
from toolkit.run.files import write_json
from toolkit.run.schema import Continued, Fill

FILE = "samples.json"
BLANKS, BEGINNINGS = 5, 3
MOST_DOCUMENTS = 500
"""Of which some are taken, evenly; the rest of a large corpus is not read."""
BEGINNING, NEW_TOKENS = 60, 48
"""Characters of a beginning; tokens that are added to it."""


def write_samples(run_directory: str | Path, data_dir: str | Path, language: str = "en") -> None:
    """`samples.json` of a pretraining, from the documents it held out; nothing where these are gone."""
    held_out = Path(data_dir) / "corpus/validation.jsonl"
    if not held_out.is_file():
        return
    texts = [document.text for document, _ in zip(read_documents(held_out), range(MOST_DOCUMENTS), strict=False)]
    opened = open_model(Path(run_directory) / "model")
    if opened.kind == "masked":
        blanks = _blanks(_evenly(texts, 8 * BLANKS), opened.tokenizer, opened.positions, language)
        found = {"fills": _filled(opened, [blank for blank, _ in zip(blanks, range(BLANKS), strict=False)])}
    else:
        found = {"continuations": _continued(opened, _evenly(texts, BEGINNINGS))}
    write_json(Path(run_directory) / FILE, found)


def _evenly(texts: list[str], count: int) -> list[str]:
    return texts[::max(1, len(texts) // count)][:count]


def _blanks(texts: list[str], tokenizer: PreTrainedTokenizerBase, positions: int, language: str
            ) -> Iterator[tuple[str, str]]:
    """(a sentence with a blank, the word that stood there), at most one a text: a word near its middle that is one
    token.
    """
    for text in texts:
        for sentence in map(str.strip, sentences(text[:4000], language)):
            words = sorted(re.finditer(r"\w{3,}", sentence), key=lambda word: abs(word.start() - len(sentence) / 2))
            whole = next((word for word in words if len(tokenizer.tokenize(word[0])) == 1), None)
            if 30 <= len(sentence) <= 160 and whole and tokenizer.mask_token not in sentence:
                blank = f"{sentence[:whole.start()]}{tokenizer.mask_token}{sentence[whole.end():]}"
                ids = tokenizer(blank)["input_ids"]
                if len(ids) <= positions and ids.count(tokenizer.mask_token_id) == 1:
                    yield blank, whole[0]
                    break


def _filled(opened, blanks: list[tuple[str, str]]) -> list[Fill]:
    if not blanks:
        return []
    answers = fill_masks(opened, [text for text, _ in blanks], top_k=min(5, len(opened.tokenizer)))
    return [{"text": text, "answers": [[token, round(share, 4)] for token, share in found[0]], "truth": truth}
            for (text, truth), found in zip(blanks, answers, strict=True)]


def _continued(opened, texts: list[str]) -> list[Continued]:
    """Documents' beginnings, cut behind a word, how the model goes on, and how the documents do."""
    found: list[Continued] = []
    for text in texts:
        beginning = re.match(rf"\s*\S.{{0,{BEGINNING}}}(?!\w)", text, flags=re.DOTALL)
        prompt = beginning[0] if beginning else text[:BEGINNING]
        if len(opened.tokenizer(prompt)["input_ids"]) >= opened.positions - 1:
            continue
        written = generate(opened, prompt, max_new_tokens=NEW_TOKENS)[0]
        came = text[len(prompt):len(prompt) + max(40, len(written.text))]
        found.append({"prompt": prompt, "text": written.text, "came": came})
    return found
