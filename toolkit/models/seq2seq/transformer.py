"""The Transformer of Vaswani et al. (2017), as transformers' Marian: post-norm layers, sinusoids, shared vectors.

Of transformers' encoder–decoders Marian is the one that is the paper's model: BART has learned positions and a
normalisation behind its vectors, T5 relative positions and no biases. Its sinusoids stand in two halves, sines before
cosines, where the paper alternates them: the same up to an order of dimensions, which no layer can tell.
"""

from dataclasses import dataclass

import torch
import transformers
from torch import nn
from transformers import MarianConfig

from toolkit.errors import UserError, did_you_mean
from toolkit.models.cross_entropy import linear_cross_entropy


@dataclass(frozen=True)
class TransformerPreset:
    """A shape; layers: of the encoder, and of the decoder."""

    layers: int
    heads: int
    width: int
    feed_forward: int
    vocab_size: int
    published_parameters: int | None
    source: str


TRANSFORMERS: dict[str, TransformerPreset] = {
    "transformer-micro": TransformerPreset(2, 4, 64, 128, 256, None, "a size for dates and letters, in seconds"),
    "transformer-tiny": TransformerPreset(4, 4, 128, 256, 10_000, 2_600_000,
                                          "Wu et al. 2021, Good for misconceived reasons, the model for Multi30k"),
    "transformer-mini": TransformerPreset(3, 8, 256, 1024, 10_000, None, "a size for some ten thousand pairs"),
    "transformer-base": TransformerPreset(6, 8, 512, 2048, 37_000, 65_000_000, "Vaswani et al. 2017, table 3"),
    "transformer-big": TransformerPreset(6, 16, 1024, 4096, 37_000, 213_000_000, "Vaswani et al. 2017, table 3"),
}


class MarianMTModel(transformers.MarianMTModel):
    """transformers' own, in name and in checkpoints. Given `scored_labels` it returns the summed loss, not logits."""

    def forward(self, *args, scored_labels: torch.Tensor | None = None, label_smoothing: float = 0.0, **kwargs):
        """scored_labels (B, T): the token after each of decoder_input_ids, −100 where none is to be predicted.

        Returns `loss`, the sum in nats, and `correct`, how many were the likeliest (counted without gradients alone).
        Without scored_labels, transformers' own forward.
        """
        if scored_labels is None:
            return super().forward(*args, **kwargs)
        hidden = self.model(*args, use_cache=False, **kwargs).last_hidden_state
        loss, correct = linear_cross_entropy(hidden.flatten(0, 1), self.lm_head.weight, scored_labels.flatten(),
                                             self.final_logits_bias[0], label_smoothing)
        return {"loss": loss, "correct": correct}


def transformer_config(name: str, vocab_size: int | None = None, decoder_vocab_size: int | None = None,
                       dropout: float = 0.1, max_position_embeddings: int = 128, **tokens: int) -> MarianConfig:
    """A preset's configuration.

    decoder_vocab_size: None where both sides have the same tokens; their vectors are then one matrix, which also is the
    output's (section 3.4). tokens: pad_token_id, eos_token_id, decoder_start_token_id.
    """
    if name not in TRANSFORMERS:
        raise UserError(f"unknown architecture '{name}'.{did_you_mean(name, TRANSFORMERS)}")
    shape = TRANSFORMERS[name]
    vocab_size = vocab_size or shape.vocab_size
    tokens = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0} | tokens
    return MarianConfig(
        vocab_size=vocab_size, decoder_vocab_size=decoder_vocab_size or vocab_size, d_model=shape.width,
        share_encoder_decoder_embeddings=decoder_vocab_size is None, tie_word_embeddings=True, scale_embedding=True,
        encoder_layers=shape.layers, decoder_layers=shape.layers, encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads, encoder_ffn_dim=shape.feed_forward, decoder_ffn_dim=shape.feed_forward,
        activation_function="relu", dropout=dropout, max_position_embeddings=max_position_embeddings,
        forced_eos_token_id=None, **tokens)


def new_transformer(config: MarianConfig) -> MarianMTModel:
    """With the authors' initial values (tensor2tensor): vectors of length about 1, Glorot-uniform maps, biases 0.

    Marian's own, normal(0.02) for all, let sinusoids drown the vectors.
    """
    model = MarianMTModel(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                if module is not model.lm_head:
                    nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for vectors in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens):
            nn.init.normal_(vectors.weight, 0.0, config.d_model**-0.5)
            vectors.weight[config.pad_token_id].zero_()
    return model


def count_parameters(name: str) -> int:
    """Of a preset at its own vocabulary, on the meta device: nothing is allocated. Sinusoids are no parameters."""
    with torch.device("meta"):
        model = MarianMTModel(transformer_config(name))
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
