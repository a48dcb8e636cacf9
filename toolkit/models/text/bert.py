"""`BertForPreTraining` that computes only what the losses read; names and checkpoints stay transformers'."""

import torch
import transformers
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertLayer, eager_attention_forward

from toolkit.models.cross_entropy import linear_cross_entropy


class BertForPreTraining(transformers.BertForPreTraining):
    """Devlin et al. (2018) with both heads. Given `masked_positions` it returns summed losses instead of logits.

    The losses read [CLS] and the predicted positions alone, 15 % of all. So the vocabulary-sized output layer sees
    only these, and the last layer, in which every position still attends to all, answers only these. A fixed number
    of predictions a row keeps shapes static. Everything else, loading and saving included, is inherited.
    """

    def __init__(self, config):
        super().__init__(config)
        self.bert.encoder.layer[-1].__class__ = _LastLayer

    def forward(self, *args, masked_positions: torch.Tensor | None = None,
                masked_labels: torch.Tensor | None = None, next_sentence_label: torch.Tensor | None = None, **kwargs):
        """masked_positions, masked_labels (B, P) with −100 for unused slots; next_sentence_label (B,).

        Returns sums over the batch: `mlm` and `nsp` losses in nats and, in evaluation mode, `mlm_correct` and
        `nsp_correct` predictions. Without masked_positions, transformers' own forward.
        """
        if masked_positions is None:
            return super().forward(*args, next_sentence_label=next_sentence_label, **kwargs)
        encoded = self.bert(*args, read_positions=F.pad(masked_positions, (1, 0)), **kwargs)
        chosen = encoded.last_hidden_state[:, 1:].flatten(0, 1)
        head = self.cls.predictions
        loss, correct = linear_cross_entropy(head.transform(chosen), head.decoder.weight, masked_labels.flatten(),
                                             head.decoder.bias)
        sums = {"mlm": loss} if self.training else {"mlm": loss, "mlm_correct": correct}
        if next_sentence_label is not None:
            relation = self.cls.seq_relationship(encoded.pooler_output).float()
            sums["nsp"] = F.cross_entropy(relation, next_sentence_label, reduction="sum")
            if not self.training:
                sums["nsp_correct"] = (relation.argmax(-1) == next_sentence_label).sum()
        return sums


class _LastLayer(BertLayer):
    """`BertLayer` that, given `read_positions` (B, P), answers for these positions alone: (B, P, width)."""

    def forward(self, hidden_states, attention_mask=None, *args, read_positions=None, **kwargs):
        if read_positions is None:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        attention = self.attention.self
        batch, length, width = hidden_states.shape
        row = torch.arange(batch, device=hidden_states.device)[:, None] * length
        read = hidden_states.flatten(0, 1).index_select(0, (row + read_positions).flatten()).view(batch, -1, width)

        def by_head(states):
            return states.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)

        if attention_mask is not None:
            rows = read_positions[:, None, :, None].expand(-1, -1, -1, length)
            attention_mask = attention_mask.expand(batch, -1, length, -1).gather(2, rows)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
        context, _ = attend(attention, by_head(attention.query(read)), by_head(attention.key(hidden_states)),
                            by_head(attention.value(hidden_states)), attention_mask, scaling=attention.scaling,
                            dropout=attention.dropout.p if self.training else 0.0)
        return self.feed_forward_chunk(self.attention.output(context.flatten(2), read))
