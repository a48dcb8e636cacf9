"""The yardstick for BERT's batches: pairs and masks as google-research/bert makes them, one at a time, plainly.

Written from Devlin et al. (2018), section 3.1 and appendix A.2, and the description of create_pretraining_data.py in
that repository's README: documents are lists of sentences, sentences lists of word pieces. A chunk of sentences fills
a row; it is cut into A and B at random; half of the time (always, when the chunk is one sentence) B is replaced by
sentences of a random other document; what is too long loses tokens at either end; 15 % of the pieces are predicted.
`make bench-data` times it and compares what it makes with `toolkit.data.stores.bert_batches`; the tests do the latter,
too.
"""

import random
from collections.abc import Iterator

import numpy as np

CLS, SEP, MASK, PAD = "[CLS]", "[SEP]", "[MASK]", "[PAD]"


def create_instances(documents: list[list[list[str]]], vocabulary: list[str], max_seq_length: int,
                     short_seq_prob: float, mlm_probability: float, max_predictions: int, whole_word_masking: bool,
                     rng: random.Random) -> Iterator[dict[str, np.ndarray]]:
    """One pass over the documents: arrays as a model takes them, of one row each."""
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    words = [piece for piece in vocabulary if piece not in (CLS, SEP, MASK, PAD, "[UNK]")]
    for number in range(len(documents)):
        for pieces, types, is_random in pairs_of_document(documents, number, max_seq_length, short_seq_prob, rng):
            positions, labels = mask(pieces, words, mlm_probability, max_predictions, whole_word_masking, rng)
            missing = max_seq_length - len(pieces)
            unused = max_predictions - len(positions)
            yield {
                "input_ids": np.asarray([ids[piece] for piece in pieces] + [ids[PAD]] * missing),
                "token_type_ids": np.asarray(types + [0] * missing),
                "attention_mask": np.asarray([1] * len(pieces) + [0] * missing),
                "masked_positions": np.asarray(positions + [0] * unused),
                "masked_labels": np.asarray([ids[label] for label in labels] + [-100] * unused),
                "next_sentence_label": np.asarray(int(is_random)),
            }


def pairs_of_document(documents: list[list[list[str]]], number: int, max_seq_length: int, short_seq_prob: float,
                      rng: random.Random) -> Iterator[tuple[list[str], list[int], bool]]:
    """(pieces, token types, whether B is random) of every chunk of a document."""
    document, room = documents[number], max_seq_length - 3
    target = rng.randint(2, room) if rng.random() < short_seq_prob else room
    chunk, length, position = [], 0, 0
    while position < len(document):
        chunk.append(document[position])
        length += len(document[position])
        if position == len(document) - 1 or length >= target:
            cut = rng.randint(1, len(chunk) - 1) if len(chunk) >= 2 else 1
            a = [piece for sentence in chunk[:cut] for piece in sentence]
            is_random = len(chunk) == 1 or rng.random() < 0.5
            if is_random:
                b = random_continuation(documents, number, target - len(a), rng)
                position -= len(chunk) - cut  # what was not used is put back
            else:
                b = [piece for sentence in chunk[cut:] for piece in sentence]
            truncate(a, b, room, rng)
            yield [CLS, *a, SEP, *b, SEP], [0] * (len(a) + 2) + [1] * (len(b) + 1), is_random
            chunk, length = [], 0
        position += 1


def random_continuation(documents: list[list[list[str]]], number: int, length: int, rng: random.Random) -> list[str]:
    other = number
    for _ in range(10):  # ten tries to find another document
        other = rng.randint(0, len(documents) - 1)
        if other != number:
            break
    start = rng.randint(0, len(documents[other]) - 1)
    b = []
    for sentence in documents[other][start:]:
        b.extend(sentence)
        if len(b) >= length:
            break
    return b


def truncate(a: list[str], b: list[str], room: int, rng: random.Random) -> None:
    """Take tokens from the longer of the two, from either end, until both fit."""
    while len(a) + len(b) > room:
        longer = a if len(a) > len(b) else b
        if rng.random() < 0.5:
            del longer[0]
        else:
            longer.pop()


def mask(pieces: list[str], words: list[str], mlm_probability: float, max_predictions: int, whole_word_masking: bool,
         rng: random.Random) -> tuple[list[int], list[str]]:
    """Replace in place what is to be predicted; returns positions and what stood there."""
    candidates: list[list[int]] = []
    for position, piece in enumerate(pieces):
        if piece in (CLS, SEP):
            continue
        if whole_word_masking and candidates and piece.startswith("##") and candidates[-1][-1] == position - 1:
            candidates[-1].append(position)
        else:
            candidates.append([position])
    rng.shuffle(candidates)
    wanted = min(max_predictions, max(1, round(len(pieces) * mlm_probability)))
    chosen: list[tuple[int, str]] = []
    for word in candidates:
        if len(chosen) >= wanted:
            break
        if len(chosen) + len(word) > wanted:
            continue
        for position in word:
            chosen.append((position, pieces[position]))
            draw = rng.random()
            if draw < 0.8:
                pieces[position] = MASK
            elif draw < 0.9:
                pieces[position] = words[rng.randint(0, len(words) - 1)]
    chosen.sort()
    return [position for position, _ in chosen], [piece for _, piece in chosen]
