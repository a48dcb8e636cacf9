"""Named architectures → transformers configurations, each with the parameter count its authors published.

BERT counts are of the encoder with its pooler (`BertModel`), without the masked-LM head; GPT counts are of
the language model with tied output (`GPT2Model`: the output layer adds nothing). Every count belongs to the
preset's own vocabulary.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import BertConfig, GPT2Config, PreTrainedConfig

from toolkit.errors import UserError, did_you_mean
from toolkit.models.families import FAMILIES, family

_BERT_VOCABULARY = 30_522  # WordPiece of google-research/bert, uncased
_GPT1_VOCABULARY = 40_478  # 40,000 BPE merges and the symbols they start from
_GPT2_VOCABULARY = 50_257  # 256 bytes, 50,000 merges, <|endoftext|>; GPT-3's too
_GPT2_END_OF_TEXT = 50_256


@dataclass(frozen=True)
class Preset:
    """The shape of one architecture. The head size is width / heads, the MLP 4 × width."""

    name: str
    family: Literal["bert", "gpt"]
    layers: int
    heads: int
    width: int
    vocab_size: int
    max_position_embeddings: int
    published_parameters: int | None
    """As the source rounds it; None for shapes of ours that nobody published."""
    source: str


def _bert(name: str, layers: int, heads: int, width: int, published: int, source: str) -> Preset:
    return Preset(name, "bert", layers, heads, width, _BERT_VOCABULARY, 512, published, source)


def _gpt2(name: str, layers: int, heads: int, width: int, published: int) -> Preset:
    # The paper's table 2 says 117M, 345M, 762M and 1542M, which the authors corrected in the repository.
    source = "Radford et al. 2019, table 2; counts as corrected in github.com/openai/gpt-2"
    return Preset(name, "gpt", layers, heads, width, _GPT2_VOCABULARY, 1024, published, source)


def _gpt3(name: str, layers: int, heads: int, width: int, published: int) -> Preset:
    source = "Brown et al. 2020, table 2.1"
    return Preset(name, "gpt", layers, heads, width, _GPT2_VOCABULARY, 2048, published, source)


def _like_bert(name: str, layers: int, heads: int, width: int) -> Preset:
    # BERT's vocabulary size and positions as well, so that a GPT and a BERT differ in nothing but the family.
    source = f"the shape of bert-{name.removeprefix('gpt-')} as a GPT"
    return Preset(name, "gpt", layers, heads, width, _BERT_VOCABULARY, 512, None, source)


_TURC = "Turc et al. 2019; counts of the encoder with pooler"
_DEVLIN = "Devlin et al. 2018, section 3"

PRESETS: dict[str, Preset] = {p.name: p for p in (
    _bert("bert-tiny", 2, 2, 128, 4_400_000, _TURC),
    Preset("bert-2x256", "bert", 2, 4, 256, _BERT_VOCABULARY, 512, None, "Turc et al. 2019, uncased_L-2_H-256_A-4"),
    _bert("bert-mini", 4, 4, 256, 11_200_000, _TURC),
    _bert("bert-small", 4, 8, 512, 28_800_000, _TURC),
    _bert("bert-medium", 8, 8, 512, 41_400_000, _TURC),
    _bert("bert-base", 12, 12, 768, 110_000_000, _DEVLIN),
    _bert("bert-large", 24, 16, 1024, 340_000_000, _DEVLIN),
    _like_bert("gpt-tiny", 2, 2, 128),
    _like_bert("gpt-mini", 4, 4, 256),
    _like_bert("gpt-small", 4, 8, 512),
    _like_bert("gpt-medium", 8, 8, 512),
    Preset("gpt-nano", "gpt", 3, 3, 48, 3, 11, 85_584, "bbycroft.net/llm: sorts the letters A, B, C"),
    Preset("nanogpt-cpu", "gpt", 4, 4, 128, 65, 64, None,
           "github.com/karpathy/nanoGPT, README, the run for a cheap computer: tiny Shakespeare by character"),
    # GPT-1 normalises after each block, GPT-2 before it and at the end: this is GPT-1's shape, GPT-2's order.
    Preset("gpt1", "gpt", 12, 12, 768, _GPT1_VOCABULARY, 512, 117_000_000,
           "Radford et al. 2018; count from Radford et al. 2019, table 2"),
    _gpt2("gpt2", 12, 12, 768, 124_000_000),
    _gpt2("gpt2-medium", 24, 16, 1024, 355_000_000),
    _gpt2("gpt2-large", 36, 20, 1280, 774_000_000),
    _gpt2("gpt2-xl", 48, 25, 1600, 1_558_000_000),
    _gpt3("gpt3-small", 12, 12, 768, 125_000_000),
    _gpt3("gpt3-medium", 24, 16, 1024, 350_000_000),
    _gpt3("gpt3-large", 24, 16, 1536, 760_000_000),
    # The table gives XL 24 heads of 128 at width 2048: 24 × 128 = 3072. 16 heads of 128 make 2048, and 1.3 B.
    _gpt3("gpt3-xl", 24, 16, 2048, 1_300_000_000),
    _gpt3("gpt3-2.7b", 32, 32, 2560, 2_700_000_000),
    _gpt3("gpt3-6.7b", 32, 32, 4096, 6_700_000_000),
    # The table gives 13B a width of 5140 with 40 heads of 128: 40 × 128 = 5120.
    _gpt3("gpt3-13b", 40, 40, 5120, 13_000_000_000),
    _gpt3("gpt3", 96, 96, 12_288, 175_000_000_000),
)}


def _bert_settings(shape: Preset, vocab_size: int, positions: int) -> dict[str, Any]:
    return {"num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "hidden_size": shape.width,
            "intermediate_size": 4 * shape.width, "vocab_size": vocab_size, "max_position_embeddings": positions,
            "hidden_act": "gelu"}


def _gpt2_settings(shape: Preset, vocab_size: int, positions: int) -> dict[str, Any]:
    # GPT2Config's default ids belong to GPT-2's own vocabulary and lie outside a smaller one.
    end = _GPT2_END_OF_TEXT if vocab_size == _GPT2_VOCABULARY else None
    # `gelu_pytorch_tanh` is the tanh approximation that the paper's `gelu_new` spells out, in one kernel instead of
    # six; checkpoints are interchangeable. `n_ctx` is what OpenAI's own hparams, and converters, call the positions.
    return {"n_layer": shape.layers, "n_head": shape.heads, "n_embd": shape.width, "vocab_size": vocab_size,
            "n_positions": positions, "n_ctx": positions, "activation_function": "gelu_pytorch_tanh",
            "bos_token_id": end, "eos_token_id": end}


_FAMILIES = {"bert": (FAMILIES["bert"], _bert_settings), "gpt": (FAMILIES["gpt2"], _gpt2_settings)}
"""What a preset calls its family → that family, and what of a shape its configuration takes."""


def preset(name: str) -> Preset:
    """The preset called `name`; UserError (a ValueError) with the nearest name when there is none."""
    if name not in PRESETS:
        raise UserError(f"unknown architecture '{name}'.{did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def preset_of(config: PreTrainedConfig, likely: str = "") -> str | None:
    """The preset whose shape a configuration has; of several `likely`, or else one with its vocabulary, or the first.
    None where there is no such preset.
    """
    shape = config.num_hidden_layers, config.num_attention_heads, config.hidden_size
    fitting = [name for name, known in PRESETS.items() if _FAMILIES[known.family][0] is family(config)
               and (known.layers, known.heads, known.width) == shape]
    return min(fitting, key=lambda name: (name != likely, PRESETS[name].vocab_size != config.vocab_size), default=None)


def model_config(name: str, vocab_size: int | None = None, max_position_embeddings: int | None = None,
                 dropout: float | None = None, **overrides: Any) -> BertConfig | GPT2Config:
    """The transformers configuration of a preset.

    vocab_size and max_position_embeddings default to the preset's; `dropout` sets all of the family's dropout
    rates (transformers' default: 0.1); `overrides` are further fields of the configuration, such as
    `pad_token_id`. Unlike transformers, an unknown field is an error (UserError).
    """
    shape = preset(name)
    vocab_size = shape.vocab_size if vocab_size is None else vocab_size
    positions = shape.max_position_embeddings if max_position_embeddings is None else max_position_embeddings
    known, settings_of = _FAMILIES[shape.family]
    config_class, settings = known.config, settings_of(shape, vocab_size, positions)
    if dropout is not None:
        settings |= dict.fromkeys(known.dropouts, dropout)
    fields = {field.name for field in dataclasses.fields(config_class)}
    for key in overrides:
        if key not in fields:
            raise UserError(f"{config_class.__name__} has no field '{key}'.{did_you_mean(key, fields)}")
    return config_class(**(settings | overrides))


def count_parameters(name: str, vocab_size: int | None = None) -> int:
    """Parameters of a preset as its authors count them (see the module), at `vocab_size` or at its own.

    Built on the meta device: nothing is allocated, and GPT-3's 175 B take seconds.
    """
    config = model_config(name, vocab_size)
    with torch.device("meta"):
        model = family(config).model(config)
    return sum(parameter.numel() for parameter in model.parameters())
