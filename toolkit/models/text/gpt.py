"""`GPT2LMHeadModel` that returns a summed loss; the class, names and checkpoints stay transformers'."""

import torch
import transformers

from toolkit.models.cross_entropy import linear_cross_entropy


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
        loss, correct = linear_cross_entropy(hidden.flatten(0, 1), self.lm_head.weight, shifted_labels.flatten())
        return {"lm": loss} if self.training else {"lm": loss, "lm_correct": correct}
