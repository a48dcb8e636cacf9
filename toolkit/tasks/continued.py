"""Pretraining that goes on from a model (`init_from`): its shape, tokenizer and weights, with a new schedule."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from toolkit.errors import UserError
from toolkit.models.families import FAMILIES, family
from toolkit.models.load import load_checkpoint_tokenizer, load_weights, model_directory, pretrained_config
from toolkit.models.presets import preset, preset_of
from toolkit.tasks.pretraining import with_defaults
from toolkit.tokenization.bins import FILE_NAME, read_series_bins
from toolkit.tokenization.load import fingerprint, load_tokenizer
from toolkit.tokenization.train import is_spec


@dataclass(frozen=True)
class Start:
    """A model that pretraining goes on from."""

    name: str
    """As the configuration names it."""
    directory: str
    config: PreTrainedConfig

    def load(self, kind: type[PreTrainedModel], dropout: float, may_lack: tuple[str, ...] = ()) -> PreTrainedModel:
        """Its weights as a model of `kind`, with these rates of dropout. may_lack: as of `load_weights`."""
        config = copy.deepcopy(self.config)
        for name in family(config).dropouts:
            setattr(config, name, dropout)
        model = load_weights(kind, self.directory, self.name, may_lack=may_lack, config=config)
        model.config.name_or_path = ""  # where it lies is no part of what it is; the card says what it was
        return model


def start_of(settings: Any, model_type: str) -> tuple[Any, Start | None]:
    """A pretraining configuration with what goes with its model filled in, and the model to go on from, if any.

    Of that model are shape and tokenizer, and what is left open of the training goes with its width. UserError where
    the configuration asks for others.
    """
    if not settings.init_from:
        return replace(settings, training=with_defaults(settings.training, settings.model.preset)), None
    directory = model_directory(settings.init_from)
    config = pretrained_config(directory)
    if family(config) is not FAMILIES[model_type]:
        raise UserError(f"{settings.init_from}: is a {family(config).title} (init_from); this recipe trains a "
                        f"{FAMILIES[model_type].title}. Name another model, or use the other recipe.")
    default = type(settings.model)().preset
    own, asked = preset_of(config, settings.model.preset), settings.model.preset
    if asked not in (own, default):
        shape = preset(asked)
        raise UserError(f"{settings.init_from}: has {config.num_hidden_layers} layers of width {config.hidden_size} "
                        f"(init_from); model.preset is {asked}: {shape.layers} layers of width {shape.width}. Leave "
                        f"model.preset out.")
    positions = settings.model.max_position_embeddings
    if positions not in (None, config.max_position_embeddings):
        raise UserError(f"{settings.init_from}: has {config.max_position_embeddings} positions (init_from); "
                        f"model.max_position_embeddings is {positions}. Leave it out.")
    model = replace(settings.model, preset=own or asked, max_position_embeddings=config.max_position_embeddings)
    training = with_defaults(settings.training, model.preset if own else None, config.hidden_size)
    return (replace(settings, model=model, training=training, tokenizer=_tokenizer(settings, directory)),
            Start(settings.init_from, directory, config))


def _tokenizer(settings: Any, directory: str) -> str:
    """The model's, which a spec gives way to; UserError for a trained one that is another."""
    asked = settings.tokenizer
    of_series = getattr(settings, "series", None) is not None and bool(settings.series.sources)
    if of_series:
        own = read_series_bins(directory).fingerprint()
        is_other = asked != type(settings).tokenizer and read_series_bins(asked).fingerprint() != own
    else:
        own = fingerprint(load_checkpoint_tokenizer(directory))
        is_other = not is_spec(asked) and fingerprint(load_tokenizer(asked)) != own
    if is_other:
        file = FILE_NAME if of_series else "tokenizer.json"
        raise UserError(f"{asked}: is another tokenizer than that of {settings.init_from} (its {file} differs), whose "
                        f"words a model cannot exchange. Leave `tokenizer` out.")
    is_on_hub = not of_series and not Path(settings.init_from).exists()
    return settings.init_from if is_on_hub else directory
