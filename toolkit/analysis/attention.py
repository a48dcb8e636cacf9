"""What every attention head of a model looks at, for one text or one series, on an HTML page with nothing to fetch.

A map has a row for each token that reads and a column for each that is read. Beside it stands its entropy against
uniform attention: 1 where a head reads everything alike, 0 where each token reads one other alone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import ModelOutput

from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText
from toolkit.data.text.text_input import TextInput
from toolkit.errors import UserError
from toolkit.inference.answers import answers_table
from toolkit.models.families import FAMILIES, family
from toolkit.models.load import checkpoint_config, load_checkpoint_tokenizer, load_weights, model_directory
from toolkit.models.losses import probabilities, task_of
from toolkit.models.registry import is_classifier
from toolkit.models.series import patches as series_models
from toolkit.models.text.classifier import TextConfig
from toolkit.run.provenance import without_machine_paths
from toolkit.shown import in_html
from toolkit.views import View, Viewed, as_html

_MOST_ANSWERS = 5
HEADS_SHOWN, TOKENS_SHOWN = 12, 20
"""In a notebook."""


@dataclass(frozen=True)
class Answer:
    """Something that the model predicted from the input."""

    what: str
    """What was asked for, such as "next token"."""
    said: str
    """What it predicted."""
    likeliest: tuple[tuple[str, float], ...] = ()
    """The likeliest answers with their probabilities, the first five; none where the answer is a number."""
    place: int | None = None
    """The position that it is read from, where that is one alone."""


@dataclass(frozen=True, repr=False)
class AttentionMaps(Viewed):
    """The attention of every head for one input of T tokens or patches, and what the model made of it."""

    name: str
    """The model's."""
    labels: tuple[str, ...]
    """(T,) what stands at each position that is read."""
    weights: np.ndarray
    """float32 (layers, heads, T, T): reader by read; rows sum to 1. (layers, heads, R, T) where there are `readers`."""
    is_causal: bool
    """Whether position i reads positions 0 to i alone."""
    values: np.ndarray | None = None
    """float32 (C, L): the series, where it is one."""
    spans: tuple[tuple[int, int], ...] = ()
    """(T,) of a series: the values of each patch, from and up to before."""
    answers: tuple[Answer, ...] = ()
    """What was predicted: a class, the next token, what stands at each mask."""
    forecast: np.ndarray | None = None
    """float32 (C, horizon): what a forecaster says follows the series."""
    special: frozenset[int] = frozenset()
    """Positions of tokens that are no part of the text, such as [CLS]."""
    channels: tuple[str, ...] = ()
    """(C,) names of the series' channels."""
    readers: tuple[str, ...] = ()
    """(R,) of an encoder–decoder: the target's words, which read the source's."""
    unit: str = "token"
    """What a position holds: a token, a word or a character."""

    def _shown(self) -> View:
        layers, heads, _, length = self.weights.shape
        entropy = relative_entropy(self)
        over = f"{len(self.readers)} × {length} {self.unit}s" if self.readers else (
            f"{length} {'patches' if self.spans else 'tokens'}")
        rows = [(f"layer {layer + 1}", *(round(float(value), 2) for value in entropy[layer, :HEADS_SHOWN]))
                for layer in range(layers)]
        return View(f"attention of {self.name}: {layers} layers of {heads} heads over {over}",
                    {"read": ("" if self.unit == "character" else " ").join(self.labels), **{
                        answer.what: answer.said for answer in self.answers}},
                    ("entropy", *(f"head {head + 1}" for head in range(min(heads, HEADS_SHOWN)))), rows,
                    "1: a head reads everything alike; 0: one other alone. write_attention_page shows every map.")

    def _repr_html_(self) -> str:
        return as_html(self._shown()) + self._map_in_html()

    def _map_in_html(self) -> str:
        """The last layer's mean over heads, of the first tokens: who reads in rows, who is read in columns."""
        labels = [in_html(label) for label in self.labels[:TOKENS_SHOWN]]
        readers = [in_html(label) for label in (self.readers or self.labels)[:TOKENS_SHOWN]]
        mean = self.weights[-1].mean(0)[:len(readers), :len(labels)]
        strongest = float(mean.max()) or 1.0
        head = "".join(f'<th scope="col">{label}</th>' for label in labels)
        rows = "".join(f'<tr><th scope="row">{label}</th>' + "".join(
            f'<td title="{value:.3f}" style="background:rgba(0,114,178,{value / strongest:.2f})">&nbsp;</td>'
            for value in row) + "</tr>" for label, row in zip(readers, mean.tolist(), strict=True))
        more = f", the first {TOKENS_SHOWN} of {len(self.labels)}" * (len(self.labels) > TOKENS_SHOWN)
        return (f'<div style="overflow-x:auto"><table><caption>Last layer, mean over heads{more}: rows read columns'
                f'</caption><tr><td></td>{head}</tr>{rows}</table></div>')


def text_attention(model: str | Path, text: str, text_pair: str = "") -> AttentionMaps:
    """The maps of a BERT, a GPT-2 or a text classifier around one, for a text or a pair, and what it predicts.

    UserError for a text with more tokens than the model has positions, and for other models.
    """
    directory = model_directory(model)
    config = checkpoint_config(directory)
    if not isinstance(config, TextConfig) and config.model_type not in FAMILIES:
        raise UserError(f"{model}: is a {config.model_type}, not a BERT, a GPT-2 or a text classifier around one. Give "
                        f"such a model; series classifiers take a series.")
    tokenizer = load_checkpoint_tokenizer(directory)
    classifies = is_classifier(config)
    batch = _as_learned(config, tokenizer, text, text_pair) if classifies else tokenizer(
        text, text_pair or None, return_tensors="pt")
    length, positions = batch["input_ids"].shape[1], getattr(config, "backbone_config", config).max_position_embeddings
    if not 1 <= length <= positions:
        raise UserError(f"text: has {length} tokens; the model has {positions} positions. "
                        f"{'Shorten it.' if length else 'Give some text.'}")
    if not family(config).has_segments:
        batch = {"input_ids": batch["input_ids"]}
    head = _head_of(config)
    bare = family(config).bare if head is AutoModel else {}
    loaded = load_weights(head, directory, model, attn_implementation="eager", **bare).eval()
    with torch.inference_mode():
        given = loaded(**batch, output_attentions=True)
    ids = batch["input_ids"][0].tolist()
    return AttentionMaps(without_machine_paths(str(model)), tuple(_label(tokenizer, index) for index in ids),
                         torch.cat(given.attentions).float().numpy(), family(config).is_causal,
                         answers=_answers(config, head, tokenizer, ids, given),
                         special=frozenset(place for place, index in enumerate(ids)
                                           if index in tokenizer.all_special_ids and index != tokenizer.mask_token_id))


def _as_learned(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, text: str, text_pair: str
                ) -> dict[str, torch.Tensor]:
    """A classifier's text as tokens, cut and joined as those it learned."""
    reading = TextInput.of(config, tokenizer)
    data = LabelledText([text], np.zeros(1, np.int64), tuple(config.id2label.values()),
                        [text_pair] if text_pair else None)
    batch = TextBatches(data, tokenizer, reading.max_length, 1, 0, text_input=reading).rows(np.zeros(1, np.int64))
    return {name: torch.from_numpy(values) for name, values in batch.items() if name != "labels"}


def _head_of(config: PreTrainedConfig) -> type:
    """transformers' loader of the model with the head that answers; of one without a head, the bare model's."""
    if is_classifier(config):
        return AutoModelForSequenceClassification
    architecture = (config.architectures or [""])[0]
    if architecture.endswith(("ForMaskedLM", "ForPreTraining")):
        return AutoModelForMaskedLM
    return AutoModelForCausalLM if architecture.endswith(("ForCausalLM", "LMHeadModel")) else AutoModel


def _answers(config: PreTrainedConfig, head: type, tokenizer: PreTrainedTokenizerBase, ids: list[int],
             given: ModelOutput) -> tuple[Answer, ...]:
    if head is AutoModelForSequenceClassification:
        own_class = None if hasattr(config, "backbone_config") else len(ids) - 1 if family(config).is_causal else 0
        return (_class_answer(config, given.logits, own_class),)
    if head is AutoModelForCausalLM:
        places = [len(ids) - 1]
    elif head is AutoModelForMaskedLM:
        places = [place for place, index in enumerate(ids) if index == tokenizer.mask_token_id]
    else:
        return ()
    answers = []
    for place in places[:_MOST_ANSWERS]:
        found = given.logits[0, place].float().softmax(-1).topk(min(_MOST_ANSWERS, given.logits.shape[-1]))
        likeliest = tuple((_label(tokenizer, index), probability)
                          for index, probability in zip(found.indices.tolist(), found.values.tolist(), strict=True))
        what = "next token" if head is AutoModelForCausalLM else f"{tokenizer.mask_token}, token {place + 1}"
        answers.append(Answer(what, likeliest[0][0], likeliest, place))
    return tuple(answers)


def _class_answer(config: PreTrainedConfig, logits: torch.Tensor, place: int | None = None) -> Answer:
    """logits (1, classes): what `toolkit.inference.answers` says of them."""
    outputs = probabilities(task_of(config), logits.float().numpy())
    answer = answers_table(outputs, config, {}, note=lambda _: None).iloc[0]
    if "value" in answer:
        return Answer("value", f"{answer['value']:.4g}", place=place)
    if "labels" in answer:
        said = ", ".join(answer["labels"]) or "no label"
    else:
        said = answer.get("decision", answer["label"])
    names = [config.id2label[index] for index in range(config.num_labels)]
    ordered = sorted(zip(names, outputs[0].tolist(), strict=True), key=lambda pair: -pair[1])
    return Answer("labels" if "labels" in answer else "class", said, tuple(ordered[:_MOST_ANSWERS]), place)


def series_attention(model: str | Path, values: np.ndarray, observed: np.ndarray | None = None, channel: int = 0
                     ) -> AttentionMaps:
    """The maps of one of our series models for a series (C, L), scaled as in its training; tokens are patches.

    observed: bool (C, L); patches without an observed value are read by none, and left out. channel: which one, where
    the model reads each by itself. A forecaster sees the last `context_length` values; one that wants to know more than
    the series forecasts nothing here. UserError for other models, and for a series that does not fit the model.
    """
    directory = model_directory(model)
    config = checkpoint_config(directory)
    if type(config) is not series_models.SeriesConfig:
        raise UserError(f"{model}: is a {config.model_type}, not a model of series in patches. Give one that "
                        f"make finetune-series left; other models take a text.")
    loaded = load_weights(getattr(series_models, config.architectures[0]), directory, model,
                          attn_implementation="eager").eval()
    first = max(0, values.shape[-1] - config.context_length) if config.context_length else 0
    tensor = torch.from_numpy(np.asarray(values, np.float32)[None, :, first:])
    seen = None if observed is None else torch.from_numpy(np.asarray(observed, bool)[None, :, first:])
    with torch.inference_mode():
        try:
            patches, mask = loaded.embed(loaded.scaled(tensor, seen)[0], seen)
        except ValueError as error:
            raise UserError(f"series: {error}.") from None
        attentions = loaded.backbone(inputs_embeds=patches, attention_mask=mask, output_attentions=True).attentions
        answers, forecast = _series_answers(loaded, tensor, seen)
    shown = slice(None)
    if config.channels == "independent":
        if not 0 <= channel < tensor.shape[1]:
            raise UserError(f"channel is {channel}; the series has {tensor.shape[1]}, counted from 0.")
        shown = slice(channel, channel + 1)
    else:
        channel = 0
    kept = np.ones(patches.shape[1], bool) if mask is None else mask[channel].bool().numpy()
    weights = torch.stack([layer[channel] for layer in attentions]).float().numpy()[:, :, kept][..., kept]
    length = tensor.shape[-1]
    spans = tuple((start, min(start + config.patch_length, length))
                  for start in (config.patch_stride * np.flatnonzero(kept)).tolist())
    labels = tuple(f"{first + start}–{first + stop - 1}" for start, stop in spans)
    channels = config.channel_names or [f"channel {number}" for number in range(config.num_channels)]
    return AttentionMaps(without_machine_paths(str(model)), labels, weights, family(config).is_causal,
                         tensor[0, shown].numpy(), spans, answers, None if forecast is None else forecast[shown],
                         channels=tuple(channels[shown]))


def _series_answers(loaded: series_models.SeriesModel, values: torch.Tensor, observed: torch.Tensor | None
                    ) -> tuple[tuple[Answer, ...], np.ndarray | None]:
    """Of a classifier its answer, of a forecaster its forecast (C, horizon)."""
    config = loaded.config
    if isinstance(loaded, series_models.SeriesForClassification):
        return (_class_answer(config, loaded(values, observed).logits),), None
    if isinstance(loaded, series_models.SeriesForForecasting) and not config.num_covariates \
            and values.shape[-1] == config.context_length:
        return (), loaded(values, observed).prediction[0].numpy()
    return (), None


def _label(tokenizer, index: int) -> str:
    """The token as it is written, with blanks made visible."""
    token = tokenizer.convert_ids_to_tokens(index)
    if type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece" or index in tokenizer.all_special_ids:
        return token
    return tokenizer.decode([index]).replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or token


def relative_entropy(maps: AttentionMaps) -> np.ndarray:
    """(layers, heads): a head's entropy over that of uniform attention, as a mean over its readers; in [0, 1].

    A reader that sees one position alone, as the first of a GPT, has no choice and is left out; nan if all are so.
    """
    weights = maps.weights.astype(np.float64)
    readers, length = weights.shape[-2:]
    entropy = -np.sum(weights * np.log(np.where(weights > 0, weights, 1)), -1)
    seen = np.arange(1, length + 1) if maps.is_causal else np.full(readers, length)
    return (entropy[..., seen > 1] / np.log(seen[seen > 1])).mean(-1) if length > 1 else np.full(weights.shape[:2],
                                                                                                np.nan)


