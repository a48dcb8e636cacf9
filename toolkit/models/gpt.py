"""`GPT2LMHeadModel` that returns a summed loss; the class, names and checkpoints stay transformers'."""

import torch
import transformers
from torch.nn import functional as F


class GPT2LMHeadModel(transformers.GPT2LMHeadModel):
    """Radford et al. (2019). Given `shifted_labels` it returns the summed loss instead of logits."""

    def forward(self, *args, shifted_labels: torch.Tensor | None = None, **kwargs):
        """shifted_labels (B, T): the token after each input, −100 where there is none to predict.

        Returns sums over the batch: `lm` loss in nats and, in evaluation mode, `lm_correct` predictions. Without
        shifted_labels, transformers' own forward.
        """
        if shifted_labels is None:
            return super().forward(*args, **kwargs)
        hidden = self.transformer(*args, use_cache=False, **kwargs).last_hidden_state
        logits = self.lm_head(hidden).flatten(0, 1).float()
        labels = shifted_labels.flatten()
        sums = {"lm": F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")}
        if not self.training:
            sums["lm_correct"] = (logits.argmax(-1) == labels).sum()
        return sums
