"""Recurrent encoder–decoders: RNN, LSTM or GRU, without and with attention.

    source (B, S) → embedded → encoder → states (B, S, D) and where it ended
                                              │                │ the decoder's first state: the bottleneck
    target before (B, T) → embedded → decoder → queries (B, T, H) ──► attention over states ──► logits (B, T, V)

Sutskever et al. (2014) and Cho et al. (2014) squeeze the source into the first state; Bahdanau et al. (2015) let the
decoder look back. Attention stands behind the decoder, as in Luong et al. (2015), section 3: all target words are read
at once in training. Importing this module registers the classes with transformers; `generate` works on them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput
from transformers.utils.generic import can_return_tuple

from toolkit.models.cross_entropy import linear_cross_entropy
from toolkit.models.small.attention_scores import SCORES, Score, attention_weights
from toolkit.models.small.recurrent_layer import (
    CELLS,
    RecurrentLayer,
    ending_together,
    initialise_cell,
    new_cell,
    pick,
)

States = list[torch.Tensor | tuple[torch.Tensor, torch.Tensor]]
"""A layer each: (B, H), or for an LSTM a pair of these, the second of them the cell."""


class RecurrentSeq2SeqConfig(PreTrainedConfig):
    """Shape of a recurrent encoder–decoder.

    vocab_size, decoder_vocab_size: of source and target; the latter None: the same tokens on both sides, whose vectors
        source, target and output then share (Press & Wolf 2017).
    embedding_size: None for one-hot vectors read by the cells themselves, as in Keras's character example.
    hidden_size: of each direction of the encoder, and of the decoder.
    cell, num_hidden_layers, bidirectional: of the encoder; the decoder has as many layers, in one direction.
    attention: None, or how states are scored against the decoder's: additive, dot, scaled-dot, general, location,
        content, positional, uniform (toolkit.models.small.attention_scores).
    max_position_embeddings: tokens of the longest source and target. Only `location` and `positional` attention have
        weights for each of them; the others read what comes.
    """

    model_type = "toolkit-recurrent-seq2seq"

    vocab_size: int = 8192
    decoder_vocab_size: int | None = None
    embedding_size: int | None = 256
    hidden_size: int = 512
    cell: str = "gru"
    num_hidden_layers: int = 1
    bidirectional: bool = False
    attention: str | None = "additive"
    dropout: float = 0.0
    max_position_embeddings: int = 128
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int = 1
    tie_word_embeddings: bool = False
    use_cache: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("hidden_size", "num_hidden_layers", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, not {self.cell!r}")
        if self.attention not in (None, *SCORES):
            raise ValueError(f"attention must be none or one of {', '.join(SCORES)}, not {self.attention!r}")
        self.tie_word_embeddings = self.decoder_vocab_size is None and self.embedding_size is not None
        super().__post_init__(**kwargs)


@dataclass
class RecurrentEncoderOutput(ModelOutput):
    """What an encoder read."""

    last_hidden_state: torch.Tensor | None = None
    """(B, S, D) states; zeros where there is no token."""
    ends: torch.Tensor | None = None
    """(B, layers, D) where each layer ended; behind them, for an LSTM, its cells."""


class RecurrentState:
    """What a decoder has read: a state a layer. It stands where transformers has keys and values, so that `generate`
    continues from it and beams carry it along.
    """

    def __init__(self, states: States, length: int):
        self.states, self.length = states, length

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Go on from the rows of `beam_idx`."""
        self.states = [tuple(part[beam_idx] for part in state) if isinstance(state, tuple) else state[beam_idx]
                       for state in self.states]


class RecurrentPreTrainedModel(PreTrainedModel):
    """Initial values of the encoder and of the whole."""

    config_class = RecurrentSeq2SeqConfig
    main_input_name = "input_ids"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, 0.0, module.embedding_dim**-0.5)
        elif isinstance(module, nn.RNNBase):
            initialise_cell(module, self.config.cell)
        elif isinstance(module, Score):
            module.initialise()


class RecurrentEncoder(RecurrentPreTrainedModel):
    """Source tokens → states."""

    def __init__(self, config: RecurrentSeq2SeqConfig, embed_tokens: nn.Module):
        super().__init__(config)
        self.embed_tokens = embed_tokens
        width = (1 + config.bidirectional) * config.hidden_size
        inputs = [config.embedding_size or config.vocab_size] + [width] * (config.num_hidden_layers - 1)
        self.layers = nn.ModuleList(RecurrentLayer(config.cell, size, config.hidden_size, config.bidirectional)
                                    for size in inputs)
        self.dropout = nn.Dropout(config.dropout)

    @can_return_tuple
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
                ) -> RecurrentEncoderOutput:
        """input_ids (B, S), attention_mask (B, S), 1 where there is a token."""
        seen = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        order, back = ending_together(seen)
        steps, together = self.dropout(self.embed_tokens(input_ids)), seen.gather(1, order)
        states, ends = pick(steps * seen[..., None], order), []
        for layer in self.layers:
            states, end = layer(states if layer is self.layers[0] else self.dropout(states), together)
            ends.append(end)
        hidden = [end[0] if isinstance(end, tuple) else end for end in ends]
        cells = [end[1] for end in ends if isinstance(end, tuple)]
        return RecurrentEncoderOutput(pick(states, back), torch.stack(hidden + cells, 1))


class RecurrentDecoder(nn.Module):
    """The target so far, and where the encoder ended → queries."""

    def __init__(self, config: RecurrentSeq2SeqConfig, embed_tokens: nn.Module):
        super().__init__()
        self.config, self.embed_tokens = config, embed_tokens
        size = config.embedding_size or config.decoder_vocab_size or config.vocab_size
        self.layers = nn.ModuleList(new_cell(config.cell, inputs, config.hidden_size) for inputs in
                                    [size] + [config.hidden_size] * (config.num_hidden_layers - 1))
        # Bahdanau et al. (2015), appendix A.2.2: tanh(W h) makes one state of two directions. Of one, it is handed on.
        self.bridge = (nn.Linear(2 * config.hidden_size, config.hidden_size) if config.bidirectional else None)
        self.dropout = nn.Dropout(config.dropout)

    def first_state(self, ends: torch.Tensor) -> RecurrentState:
        """ends: the encoder's."""
        layers = len(self.layers)
        states: States = list(ends[:, :layers].unbind(1))
        if self.bridge is not None:
            states = [torch.tanh(self.bridge(state)) for state in states]
        if self.config.cell == "lstm":
            own = self.bridge is None
            cells = ends[:, layers:].unbind(1) if own else [torch.zeros_like(state) for state in states]
            states = list(zip(states, cells, strict=True))
        return RecurrentState(states, 0)

    def forward(self, input_ids: torch.Tensor, before: RecurrentState) -> tuple[torch.Tensor, RecurrentState]:
        """input_ids (B, T) → queries (B, T, H), and the state behind them."""
        steps, after = self.dropout(self.embed_tokens(input_ids)), []
        for number, (layer, state) in enumerate(zip(self.layers, before.states, strict=True)):
            first = tuple(part[None].contiguous() for part in state) if isinstance(state, tuple) else state[None]
            steps, last = layer(F.pad(self.dropout(steps) if number else steps, (0, 1), value=1.0), first)
            after.append(tuple(part[0] for part in last) if isinstance(last, tuple) else last[0])
        return steps, RecurrentState(after, before.length + input_ids.shape[1])


class OneHot(nn.Module):
    """Tokens as vectors of one 1."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return F.one_hot(input_ids, self.size).float()


class RecurrentForSeq2Seq(RecurrentPreTrainedModel, GenerationMixin):
    """A recurrent encoder–decoder with an output layer.

    Computed in the format of its weights, fp32 whatever the run's is: rounding would add up over the steps. The output
    layer of a loss, behind all steps, is in the run's.
    """

    _tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight",
                          "output.weight": "encoder.embed_tokens.weight"}

    def __init__(self, config: RecurrentSeq2SeqConfig):
        super().__init__(config)
        targets = config.decoder_vocab_size or config.vocab_size
        sizes = (config.vocab_size, targets)
        source, target = (OneHot(size) if config.embedding_size is None else nn.Embedding(size, config.embedding_size)
                          for size in sizes)
        self.encoder, self.decoder = RecurrentEncoder(config, source), RecurrentDecoder(config, target)
        width = (1 + config.bidirectional) * config.hidden_size
        self.score, self.query, looked_at = None, None, 0
        if config.attention:
            if config.bidirectional:  # scores compare vectors of one size
                self.query = nn.Linear(config.hidden_size, width, bias=False)
            self.score, looked_at = SCORES[config.attention](width, config.max_position_embeddings), width
        read = config.hidden_size + looked_at
        # Luong et al. (2015), equation 5: tanh(W [context; state]). Keras's example asks the state itself.
        self.readout = nn.Linear(read, config.embedding_size, bias=False) if config.embedding_size else None
        self.output = nn.Linear(config.embedding_size or read, targets)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def get_encoder(self, modality: str | None = None) -> RecurrentEncoder:
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.output

    @can_return_tuple
    def forward(self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None,
                decoder_input_ids: torch.Tensor | None = None, encoder_outputs: RecurrentEncoderOutput | None = None,
                past_key_values: RecurrentState | None = None, labels: torch.Tensor | None = None,
                use_cache: bool | None = None, scored_labels: torch.Tensor | None = None, label_smoothing: float = 0.0,
                **_: Any) -> Seq2SeqLMOutput | dict[str, torch.Tensor]:
        """input_ids, attention_mask (B, S); decoder_input_ids (B, T): the target moved right by one, which is made of
        `labels` (B, T) where it is missing → logits (B, T, V), and the mean loss of labels that are not −100.

        cross_attentions: one tensor (B, 1, T, S) where there is attention. past_key_values: the state to go on from.
        Given scored_labels (B, T) it returns, in the place of all that, the summed `loss` in nats and `correct`, how
        many were the likeliest (counted without gradients alone).
        """
        if decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        with torch.autocast(decoder_input_ids.device.type, enabled=False):
            if encoder_outputs is None:
                encoder_outputs = self.encoder(input_ids, attention_mask)
            states = encoder_outputs[0]
            before = past_key_values or self.decoder.first_state(encoder_outputs[1])
            queries, after = self.decoder(decoder_input_ids, before)
            seen = None if attention_mask is None else attention_mask.bool()
            read, weights = self._look(queries, states, seen)
            if self.readout is not None:
                read = torch.tanh(self.readout(self.dropout(read)))
            read = self.dropout(read)
        if scored_labels is not None:
            loss, correct = linear_cross_entropy(read.flatten(0, 1), self.output.weight, scored_labels.flatten(),
                                                 self.output.bias, label_smoothing)
            return {"loss": loss, "correct": correct}
        with torch.autocast(decoder_input_ids.device.type, enabled=False):
            logits = self.output(read)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return Seq2SeqLMOutput(loss=loss, logits=logits, past_key_values=after,
                               cross_attentions=None if weights is None else (weights[:, None],),
                               encoder_last_hidden_state=states)

    def _look(self, queries: torch.Tensor, states: torch.Tensor, seen: torch.Tensor | None
              ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """queries (B, T, H), states (B, S, D) → [queries; what they saw] (B, T, H + D), and the weights (B, T, S)."""
        if self.score is None:
            return queries, None
        if states.shape[1] > self.config.max_position_embeddings and self.score.needs_steps:
            raise ValueError(f"a source of {states.shape[1]} tokens is longer than max_position_embeddings = "
                             f"{self.config.max_position_embeddings}, and attention {self.config.attention} has "
                             f"weights for no more")
        asked = queries if self.query is None else self.query(queries)
        weights = attention_weights(self.score(states, asked), seen)
        return torch.cat([queries, weights @ states], -1), weights

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """(B, T) → (B, T): the start, then each label but the last."""
        moved = F.pad(labels[:, :-1], (1, 0), value=self.config.decoder_start_token_id)
        return moved.masked_fill(moved == -100, self.config.pad_token_id)

    # --- for `generate` ---------------------------------------------------------------------------------------------

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # what is carried is a state, which the first call makes

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, past_key_values: RecurrentState | None = None,
                                      attention_mask: torch.Tensor | None = None,
                                      encoder_outputs: RecurrentEncoderOutput | None = None, **_: Any) -> dict:
        """input_ids: the target so far; of what the state has read nothing is read again."""
        if past_key_values is not None:
            input_ids = input_ids[:, past_key_values.get_seq_length():]
        return {"decoder_input_ids": input_ids, "past_key_values": past_key_values, "attention_mask": attention_mask,
                "encoder_outputs": encoder_outputs}


AutoConfig.register(RecurrentSeq2SeqConfig.model_type, RecurrentSeq2SeqConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(RecurrentSeq2SeqConfig, RecurrentForSeq2Seq, exist_ok=True)
