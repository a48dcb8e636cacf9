"""`BertForPreTraining` that scores the predicted positions alone; names and checkpoints stay transformers'."""

import torch
import transformers
from torch.nn import functional as F

from toolkit.models.loss import linear_cross_entropy


class BertForPreTraining(transformers.BertForPreTraining):
    """Devlin et al. (2018) with both heads. Given `masked_positions` it returns summed losses instead of logits.

    With 15 % of the positions predicted, skipping the others saves most of the vocabulary-sized work; a fixed
    number of predictions a row keeps shapes static. Everything else, loading and saving included, is inherited.
    """

    def forward(self, *args, masked_positions: torch.Tensor | None = None,
                masked_labels: torch.Tensor | None = None, next_sentence_label: torch.Tensor | None = None, **kwargs):
        """masked_positions, masked_labels (B, P) with −100 for unused slots; next_sentence_label (B,).

        Returns sums over the batch: `mlm` and `nsp` losses in nats and, in evaluation mode, `mlm_correct` and
        `nsp_correct` predictions. Without masked_positions, transformers' own forward.
        """
        if masked_positions is None:
            return super().forward(*args, next_sentence_label=next_sentence_label, **kwargs)
        encoded = self.bert(*args, **kwargs)
        hidden = encoded.last_hidden_state
        row = torch.arange(len(hidden), device=hidden.device)[:, None] * hidden.shape[1]
        chosen = hidden.flatten(0, 1).index_select(0, (row + masked_positions).flatten())
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
