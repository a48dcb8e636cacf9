"""Initial values that let a small model learn within minutes: sinusoids for positions, word vectors for embeddings, and
attention that looks for what is alike.

From transformers' own initial values a small BERT spends thousands of steps at word frequencies: attention cannot
find neighbours among near-zero positions, and the embeddings say nothing of which words are alike. All of these are
ordinary learned parameters that merely start elsewhere.
"""

import math

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit.data.stores.store import TokenStore
from toolkit.errors import UserError
from toolkit.models.families import family
from toolkit.models.settings import InitialValues
from toolkit.models.word_vectors import load_word2vec, train_word_vectors

_EMBEDDING_DEVIATION = 0.1  # of each number of a word vector; 0.05 learns a little slower


def initialise(model: PreTrainedModel, values: InitialValues, store: TokenStore,
               tokenizer: PreTrainedTokenizerBase) -> None:
    """Set what `values` names; call it on one process, the others get its weights."""
    if values.position_amplitude:
        set_positions(model, values.position_amplitude)
    if values.attention_agreement:
        set_attention(model, values.attention_agreement)
    if values.embeddings == "word-vectors":
        vocab_size, width = model.get_input_embeddings().weight.shape
        set_word_embeddings(model, train_word_vectors(store, vocab_size, width))
    elif values.embeddings != "random":
        set_word_embeddings(model, vectors_from_file(values.embeddings, model, tokenizer))


def sinusoids(positions: int, width: int, amplitude: float) -> torch.Tensor:
    """(positions, width) sine and cosine waves (Vaswani et al. 2017, section 3.5), scaled to `amplitude`."""
    rate = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * rate[None, :]
    table = torch.empty(positions, width, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()[:, : width // 2]
    return (amplitude * table).float()


def set_positions(model: PreTrainedModel, amplitude: float) -> None:
    """Start the learned position embeddings of a BERT or GPT-2 as sinusoids."""
    backbone = model.base_model
    weight = backbone.get_submodule(family(backbone.config).positions).weight
    with torch.no_grad():
        weight.copy_(sinusoids(*weight.shape, amplitude))


def set_attention(model: PreTrainedModel, agreement: float) -> None:
    """Start queries and keys of a BERT or GPT-2 as random maps that agree: correlation `agreement` between the weights.

    The product of a query and a key then grows with the likeness of the two states, so that from the first step
    attention goes to near positions and related words, instead of nowhere (Trockman & Kolter 2023, section 4.1, who
    factorise such a product; drawing its factors so is the same on average). Weights of variance 1 / width give the
    products a size at which softmax is neither flat nor a single one.
    """
    backbone = model.base_model
    known = family(backbone.config)
    for layer in backbone.get_submodule(known.layers):
        query, key = known.query_and_key(layer)
        width = query.shape[1]
        with torch.no_grad():
            shared, own = torch.randn(2, *query.shape) / math.sqrt(width)
            query.copy_(shared)
            key.copy_(agreement * shared + math.sqrt(1 - agreement**2) * own)


def vectors_from_file(path: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """(vocab, width) of a word2vec file by the tokenizer's entries, all-zero rows where the file has none."""
    read = load_word2vec(path)
    vectors = np.zeros(model.get_input_embeddings().weight.shape, np.float32)
    if read.vectors.shape[1] != vectors.shape[1]:
        raise UserError(f"{path}: vectors of {read.vectors.shape[1]} numbers, but the model is {vectors.shape[1]} wide "
                        f"(model.embeddings). Train vectors of that width.")
    ids = tokenizer.get_vocab()
    known = [(ids[word], row) for row, word in enumerate(read.words) if word in ids]
    if len(known) < len(ids) / 10:
        raise UserError(f"{path}: knows {len(known)} of the tokenizer's {len(ids)} entries (model.embeddings). Train "
                        f"the vectors on the same tokenizer's entries: make word-vectors.")
    for index, row in known:
        vectors[index] = read.vectors[row]
    return vectors


def set_word_embeddings(model: PreTrainedModel, vectors: np.ndarray) -> None:
    """Start the word embeddings as `vectors` (vocabulary, width), scaled; all-zero rows keep their random values."""
    weight = model.get_input_embeddings().weight
    if tuple(weight.shape) != vectors.shape:
        raise ValueError(f"word vectors of shape {vectors.shape} do not fit embeddings of shape {tuple(weight.shape)}")
    known = torch.from_numpy(np.any(vectors != 0, axis=1))
    with torch.no_grad():
        scale = _EMBEDDING_DEVIATION / vectors[known.numpy()].std()
        weight[known] = torch.from_numpy(scale * vectors).to(weight.dtype)[known]
