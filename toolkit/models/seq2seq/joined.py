"""A BERT that reads and a GPT that writes, joined by attention that is new (Rothe et al. 2020).

transformers' EncoderDecoderModel. Everything is pretrained but the decoder's attention to the encoder, one map for each
of its layers, which starts at random.
"""

from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, EncoderDecoderConfig

from toolkit.data.pairs.batches import TokenIds
from toolkit.errors import UserError
from toolkit.models.cross_entropy import linear_cross_entropy
from toolkit.models.families import FAMILIES, family
from toolkit.models.load import load_backbone, load_weights, model_directory, pretrained_config


class EncoderDecoderModel(transformers.EncoderDecoderModel):
    """transformers' own, in name and in checkpoints. Given `scored_labels` it returns the summed loss, not logits."""

    def forward(self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None,
                decoder_input_ids: torch.Tensor | None = None, *args, scored_labels: torch.Tensor | None = None,
                label_smoothing: float = 0.0, **kwargs):
        """As `toolkit.models.seq2seq.transformer.MarianMTModel.forward`."""
        if scored_labels is None:
            return super().forward(input_ids, attention_mask, decoder_input_ids, *args, **kwargs)
        states = self.encoder(input_ids, attention_mask).last_hidden_state
        if hasattr(self, "enc_to_dec_proj"):
            states = self.enc_to_dec_proj(states)
        hidden = self.decoder.base_model(decoder_input_ids, encoder_hidden_states=states, use_cache=False,
                                         encoder_attention_mask=attention_mask).last_hidden_state
        output = self.decoder.get_output_embeddings()
        loss, correct = linear_cross_entropy(hidden.flatten(0, 1), output.weight, scored_labels.flatten(), output.bias,
                                             label_smoothing)
        return {"loss": loss, "correct": correct}


def new_joined(encoder: str | Path, decoder: str | Path, ids: TokenIds, dropout: float = 0.1, pretrained: bool = True
               ) -> EncoderDecoderModel:
    """encoder: a BERT; decoder: a GPT; each a run, a directory or a hub id. UserError where one is another kind."""
    parts = {}
    for role, path, of in (("encoder", encoder, "bert"), ("decoder", decoder, "gpt2")):
        config = pretrained_config(path)
        if family(config) is not FAMILIES[of]:
            raise UserError(f"model.{role} is {path}, a {config.model_type}; give a {FAMILIES[of].title}.")
        for name in family(config).dropouts:
            setattr(config, name, dropout)
        parts[role] = config
    parts["decoder"].is_decoder = parts["decoder"].add_cross_attention = True
    shape = EncoderDecoderConfig.from_encoder_decoder_configs(parts["encoder"], parts["decoder"])
    shape.decoder_start_token_id, shape.eos_token_id, shape.pad_token_id = ids.start, ids.end, ids.pad
    model = EncoderDecoderModel(shape)
    if pretrained:
        model.encoder.load_state_dict(load_backbone(encoder, "bert").state_dict(), strict=False)
        writer = load_weights(AutoModelForCausalLM, model_directory(decoder), decoder)
        missing, _ = model.decoder.load_state_dict(writer.state_dict(), strict=False)
        assert all("cross" in name for name in missing), missing
    return model
