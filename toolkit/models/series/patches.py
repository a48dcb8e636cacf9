"""Time series through a text backbone: patches of the series take the place of word embeddings.

    series (B, C, L) → patches (B, N, width) → BERT or GPT-2 by `inputs_embeds` → classes, forecasts, hidden patches

Importing this module registers the classes with transformers, after which
`AutoModelForSequenceClassification.from_pretrained` loads what `save_pretrained` of a classifier wrote.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from toolkit.hub import checkpoint_directory
from toolkit.models.covariates import effect_of, without_effect
from toolkit.models.cross_entropy import classification_loss
from toolkit.models.families import BackboneModel, backbone_config, family, new_backbone
from toolkit.models.forecast_output import ForecastOutput
from toolkit.models.initialisation import set_positions
from toolkit.models.load import load_backbone, pretrained_config
from toolkit.models.series.embedding import (
    ConvolutionalPatches,
    LinearPatches,
    cut,
    instance_statistics,
    mean_over,
    patches_observed,
    scale_of,
)
from toolkit.pretrained import saved_model

# A random start: positions as sinusoids of this amplitude, so that patches find their neighbours, and linear patches of
# a size to match (0.02 beside these positions cost 4 points on Cylinder-Bell-Funnel).
_POSITION_AMPLITUDE, _PATCH_DEVIATION = 0.16, 0.3


class SeriesConfig(PreTrainedConfig):
    """A BERT or GPT-2 backbone and how series are cut into patches for it. Classes come as `id2label`.

    backbone_config: a BertConfig or GPT2Config, or one as a dictionary with its `model_type`. It is copied,
        and its vocabulary dropped: patches take the words' place.
    embedding: `linear`: overlapping patches through one linear map, as in PatchTST (Nie et al. 2023);
        `convolution`: filters of several lengths, averaged over patches side by side.
    patch_stride: None for half of patch_length (linear) or all of it (convolution). Linear patches side by side,
        of 16, had accuracy 0.95 instead of 0.99 on Cylinder-Bell-Funnel.
    channels: `mixed`: a patch holds all channels; `independent`: each channel is a series of its own, with the
        same weights (Nie et al. 2023, section 3.1); a classifier then averages over them.
    instance_norm: scale each series and channel by its own observed mean and deviation, and forecasts back (RevIN,
        Kim et al. 2022).
    pooling: of a classifier: `mean` over patches of the last layer, or of all `layers`, the patches themselves
        included, side by side; these differ in size, and are normalised over the batch.
    context_length, horizon: of a forecaster, in samples. num_covariates: its features that are known ahead.
    dropout: of the backbone; it replaces the backbone's own rates.
    head_dropout: before the head; None: as `dropout`.
    embedding_std: standard deviation of fresh linear patch embeddings, per dimension, for series of unit variance.
        Word embeddings have 0.02 at random and 0.02 – 0.1 trained, and positions are of a size to match:
        0.2 beside positions of 0.02 drowned them and cost 6 points on Cylinder-Bell-Funnel (patches of 8).
    channel_names, value_columns, sampling_rate, normalisation, channel_means, channel_deviations, series_length: of the
        series it learned, for whoever asks it: `toolkit.data.series.learned.Learned`. Inputs are already scaled so.
    """

    model_type = "toolkit-series"
    sub_configs: ClassVar[dict] = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    num_channels: int = 1
    embedding: Literal["linear", "convolution"] = "linear"
    patch_length: int = 16
    patch_stride: int | None = None
    channels: Literal["mixed", "independent"] = "mixed"
    instance_norm: bool = False
    pooling: Literal["mean", "layers"] = "mean"
    context_length: int | None = None
    horizon: int | None = None
    num_covariates: int = 0
    dropout: float = 0.0
    head_dropout: float | None = None
    embedding_std: float = 0.02
    channel_names: list[str] | None = None
    value_columns: list[str] | None = None
    sampling_rate: float | None = None
    normalisation: Literal["series", "train", "none"] = "series"
    channel_means: list[float] | None = None
    channel_deviations: list[float] | None = None
    series_length: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("num_channels", "patch_length", "patch_stride", "context_length", "horizon"):
            if (value := getattr(self, name)) is not None and (value < 1 or value is True):
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.patch_stride is None:
            self.patch_stride = self.patch_length if self.embedding == "convolution" else (self.patch_length + 1) // 2
        if not 1 <= self.patch_stride <= self.patch_length:
            raise ValueError(f"patch_stride must be from 1 to patch_length = {self.patch_length}, so that no "
                             f"value is skipped, not {self.patch_stride}")
        if self.embedding == "convolution" and self.patch_stride != self.patch_length:
            raise ValueError(f"convolutional patches lie side by side; patch_stride {self.patch_stride} is not "
                             f"patch_length {self.patch_length}")
        self.backbone_config = _without_words(self.backbone_config, self.dropout)
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        return self.backbone_config.hidden_size

    @property
    def embedded_channels(self) -> int:
        """Channels of one patch."""
        return self.num_channels if self.channels == "mixed" else 1

    def num_patches(self, length: int) -> int:
        """Patches of a series of `length` samples."""
        return max(0, -(-(length - self.patch_length) // self.patch_stride)) + 1


def _without_words(backbone: dict | PreTrainedConfig | None, dropout: float) -> PreTrainedConfig:
    """A copy of a backbone's configuration without a vocabulary and with `dropout` everywhere."""
    backbone = backbone_config(backbone, dropout)
    backbone.vocab_size = 1
    backbone.pad_token_id = backbone.bos_token_id = backbone.eos_token_id = None
    return backbone


class SeriesModel(BackboneModel):
    """Patches and backbone; a subclass adds a head. Positions are the backbone's own, and the only ones.

    The series of a classifier should be z-normalised (`toolkit.data.series.dataset.z_normalise`), unless
    `instance_norm` does it here. Patches are not normalised: their level and amplitude is what tells them apart.
    """

    config_class = SeriesConfig
    main_input_name = "values"

    def __init__(self, config: SeriesConfig):
        super().__init__(config)
        width = config.backbone_config.hidden_size
        shape = (config.embedded_channels, config.patch_length)
        self.patch_embedding = (ConvolutionalPatches(*shape, width) if config.embedding == "convolution"
                                else LinearPatches(*shape, config.patch_stride, width))
        self.backbone = new_backbone(config.backbone_config)
        # `inputs_embeds` goes past the word embeddings: without them nothing untrained is decayed, saved or
        # counted.
        self.backbone.set_input_embeddings(None)
        self.dropout = nn.Dropout(config.dropout if config.head_dropout is None else config.head_dropout)

    @classmethod
    def from_backbone(cls, backbone: str | Path | PreTrainedConfig, label_names: Sequence[str] = (), *,
                      pretrained: bool, **settings: Any) -> "SeriesModel":
        """A new model around a text model's layers, or a series model's: trained ones, or the same shape from random
        values.

        backbone: a directory written by `save_pretrained` of any BERT or GPT-2 class, or of a series model of this
            module (then `settings` of its patches are taken from there), or a hub id; a configuration will do when
            not `pretrained`.
        pretrained: whether to take over the directory's weights: all of its layers and positions; of a series model
            the patch embedding too; of a text model the size of its word embeddings for that of linear patches. Patch
            embedding (of a text model) and head are new either way. A random start has sinusoids for positions.
        settings: fields of SeriesConfig.

        UserError when there is no checkpoint at the path, or it lacks some of the weights.
        """
        if isinstance(backbone, PreTrainedConfig):
            if pretrained:
                raise ValueError("pretrained=True needs a checkpoint directory, not only a configuration")
            source_config = backbone
        else:
            source_config = pretrained_config(backbone, SeriesConfig)
        names = [str(name) for name in label_names]
        if names:
            settings |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        if type(source_config) is SeriesConfig:
            return cls._from_series(backbone, source_config, pretrained, settings)
        config = SeriesConfig(backbone_config=source_config, **settings)
        if not pretrained:
            return cls._random(config)
        source = load_backbone(backbone, config.backbone_config.model_type)
        config.embedding_std = source.get_input_embeddings().weight.std().item()
        source.set_input_embeddings(None)
        model = cls(config)
        model.backbone.load_state_dict(source.state_dict())  # strict: every weight has its counterpart
        return model

    @classmethod
    def _from_series(cls, path: str | Path | PreTrainedConfig, source: "SeriesConfig", pretrained: bool,
                     settings: dict) -> "SeriesModel":
        shared = {name: getattr(source, name) for name in (
            "backbone_config", "num_channels", "embedding", "patch_length", "patch_stride", "channels", "instance_norm",
            "embedding_std")}
        config = SeriesConfig(**{**settings, **shared})
        if not pretrained:
            return cls._random(config)
        trained = saved_model(SeriesForMaskedPatches, checkpoint_directory(path), path)
        model = cls(config)
        model.backbone.load_state_dict(trained.backbone.state_dict())
        model.patch_embedding.load_state_dict(trained.patch_embedding.state_dict())
        return model

    @classmethod
    def _random(cls, config: SeriesConfig) -> "SeriesModel":
        config.embedding_std = _PATCH_DEVIATION
        model = cls(config)
        set_positions(model, _POSITION_AMPLITUDE)
        return model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        embedding = getattr(self, "patch_embedding", None)
        if module is getattr(embedding, "projection", None):
            init.normal_(module.weight, std=scale_of(module, self.config.embedding_std))
        elif isinstance(module, nn.Conv2d) and isinstance(embedding, ConvolutionalPatches):
            init.kaiming_normal_(module.weight, nonlinearity="relu")

    def get_input_embeddings(self) -> nn.Module:
        return self.patch_embedding

    def freeze_all_but_norms_and_positions(self) -> None:
        """What One Fits All tunes of a text model (Zhou et al. 2023, section 3): its norms and positions; beside them
        the patch embedding and the head, which are new.
        """
        known = family(self.backbone.config)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(known.is_norm_or_position(name))

    def embed(self, values: torch.Tensor, observed: torch.Tensor | None = None, seen: torch.Tensor | None = None
              ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, L) → patches (B', N, width) and their attention mask (B', N), None where all is observed; B' is B, or
        B · C where channels are independent. seen: where of what was observed the model may look; None: everywhere.

        ValueError for series of another shape, shorter than a patch, or with more patches than the backbone has
        positions.
        """
        config: SeriesConfig = self.config
        if values.ndim != 3 or values.shape[1] != config.num_channels:
            raise ValueError(f"expected values of shape (batch, {config.num_channels}, length), "
                             f"not {tuple(values.shape)}")
        length = values.shape[-1]
        if length < config.patch_length:
            raise ValueError(f"series of length {length} are shorter than one patch of {config.patch_length}")
        count, positions = config.num_patches(length), config.backbone_config.max_position_embeddings
        if count > positions:
            raise ValueError(f"series of length {length} make {count} patches of {config.patch_length} every "
                             f"{config.patch_stride} values, but the backbone has {positions} positions")
        if config.channels == "independent":
            values = values.reshape(-1, 1, length)
            observed, seen = (None if one is None else one.reshape(-1, 1, length) for one in (observed, seen))
        mask = None
        if observed is not None:
            mask = patches_observed(observed, config.patch_length, config.patch_stride)
            # Where nothing at all was observed every patch is read, as zeros: attention to none would be undefined.
            mask = torch.where(mask.sum(1, keepdim=True) > 0, mask, torch.ones_like(mask))
        values = values.to(self.backbone.dtype)  # loaded in bf16 or fp16; statistics and losses are of what came in
        return self.patch_embedding(values, observed if seen is None else seen), mask

    def scaled(self, values: torch.Tensor, observed: torch.Tensor | None
               ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values with zeros where nothing was observed; mean and deviation, 0 and 1 without `instance_norm`."""
        if self.config.instance_norm:
            mean, deviation = instance_statistics(values, observed)
        else:
            mean, deviation = torch.zeros_like(values[..., :1]), torch.ones_like(values[..., :1])
        values = (values - mean) / deviation
        return (values if observed is None else values * observed.to(values.dtype)), mean, deviation


class SeriesForClassification(SeriesModel):
    """Series → classes (or numbers): the mean over patches of the backbone's states, then one linear map.

    For low-rank adapters give `peft` the names of the backbone's maps, as `toolkit.models.text` says.
    """

    def __init__(self, config: SeriesConfig):
        super().__init__(config)
        layers = config.backbone_config.num_hidden_layers + 1 if config.pooling == "layers" else 1
        features = config.backbone_config.hidden_size * layers
        self.head_norm = nn.BatchNorm1d(features) if config.pooling == "layers" else nn.Identity()
        self.classifier = nn.Linear(features, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(self, values: torch.Tensor, observed: torch.Tensor | None = None, labels: torch.Tensor | None = None,
                **kwargs: Any) -> SequenceClassifierOutput:
        """values (B, C, L) float, observed (B, C, L), labels → logits (B, num_labels) and, given labels, the loss
        (`classification_loss`). Further arguments, such as output_attentions, go to the backbone. Errors: as `embed`.
        """
        rows, layers = values.shape[0], self.config.pooling == "layers"
        patches, mask = self.embed(self.scaled(values, observed)[0], observed)
        asked = kwargs.pop("output_hidden_states", None)
        encoded = self.backbone(inputs_embeds=patches, attention_mask=mask, use_cache=False,
                                output_hidden_states=layers or asked, **kwargs)
        states = [patches, *encoded.hidden_states[1:]] if layers else [encoded.last_hidden_state]
        pooled = torch.cat([mean_over(state, mask) for state in states], -1)
        pooled = pooled.view(rows, -1, pooled.shape[-1]).mean(1)  # over independent channels
        pooled = pooled.float().to(self.classifier.weight.dtype)
        logits = self.classifier(self.dropout(self.head_norm(pooled)))
        loss = None if labels is None else classification_loss(self.config, logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits, attentions=encoded.attentions,
                                        hidden_states=encoded.hidden_states if asked else None)


class SeriesForForecasting(SeriesModel):
    """The values that follow: all patches' states, side by side, through one map (Nie et al. 2023, section 3.1)."""

    def __init__(self, config: SeriesConfig):
        super().__init__(config)
        if config.context_length is None or config.horizon is None:
            raise ValueError("a forecaster needs context_length and horizon")
        channels = config.num_channels if config.channels == "mixed" else 1
        states = config.num_patches(config.context_length) * config.backbone_config.hidden_size
        self.forecast = nn.Linear(states, channels * config.horizon)
        self.effect = effect_of(config)
        self.post_init()

    @can_return_tuple
    def forward(self, values: torch.Tensor, observed: torch.Tensor | None = None, future: torch.Tensor | None = None,
                covariates: torch.Tensor | None = None, **kwargs: Any) -> ForecastOutput:
        """values (B, C, context_length), future (B, C, horizon) → prediction (B, C, horizon) in the units of `values`
        and, given the future, the mean squared error. covariates (B, num_covariates, context_length + horizon): of a
        model that has some. Errors: as `embed`.
        """
        config: SeriesConfig = self.config
        if values.shape[-1] != config.context_length:
            raise ValueError(f"expected {config.context_length} values of context, not {values.shape[-1]}")
        values, ahead = without_effect(self.effect, values, covariates, config.horizon)
        scaled, mean, deviation = self.scaled(values, observed)
        patches, mask = self.embed(scaled, observed)
        encoded = self.backbone(inputs_embeds=patches, attention_mask=mask, use_cache=False, **kwargs)
        states = encoded.last_hidden_state
        if mask is not None:
            states = states * mask[..., None].to(states.dtype)
        prediction = self.forecast(self.dropout(states.flatten(1))).view(values.shape[0], -1, config.horizon)
        prediction = prediction.to(values.dtype) * deviation + mean + ahead
        loss = None if future is None else F.mse_loss(prediction, future)
        return ForecastOutput(loss=loss, prediction=prediction, hidden_states=encoded.hidden_states,
                              attentions=encoded.attentions)


@dataclass
class MaskedPatchesOutput(ModelOutput):
    """loss: mean squared error over hidden values; prediction and target: (B', N, C' · patch_length), of every patch,
    on the scale the model works in; hidden: the same shape, 1 where a value was hidden, and observed.
    """

    loss: torch.FloatTensor | None = None
    prediction: torch.FloatTensor | None = None
    target: torch.FloatTensor | None = None
    hidden: torch.FloatTensor | None = None


class SeriesForMaskedPatches(SeriesModel):
    """Pretraining on series alone: hidden stretches are told from the rest (Nie et al. 2023, section 3.2).

    A hidden value is 0 to the embedding, and the share of a patch that is hidden times one learned vector is added to
    it. So nothing hidden is seen, whether patches overlap or filters look beyond them.
    """

    def __init__(self, config: SeriesConfig):
        super().__init__(config)
        width = config.backbone_config.hidden_size
        self.mask_embedding = nn.Parameter(torch.zeros(width))
        self.reconstruction = nn.Linear(width, config.embedded_channels * config.patch_length)
        self.post_init()

    @can_return_tuple
    def forward(self, values: torch.Tensor, masked: torch.Tensor, observed: torch.Tensor | None = None, **kwargs: Any
                ) -> MaskedPatchesOutput:
        """values (B, C, L), masked (B, C, L) bool: True where hidden. Statistics of `instance_norm` are of what is not
        hidden."""
        config: SeriesConfig = self.config
        seen = ~masked if observed is None else observed.bool() & ~masked
        scaled, mean, deviation = self.scaled(values, seen)
        patches, mask = self.embed(scaled, observed, seen)

        def by_patch(tensor):
            if config.channels == "independent":
                tensor = tensor.reshape(-1, 1, tensor.shape[-1])
            return cut(tensor.float(), config.patch_length, config.patch_stride).flatten(2)

        target = by_patch((values - mean) / deviation)
        share = by_patch(masked).mean(-1, keepdim=True)
        embedded = patches + share.to(self.mask_embedding.dtype) * self.mask_embedding
        encoded = self.backbone(inputs_embeds=embedded, attention_mask=mask, use_cache=False, **kwargs)
        prediction = self.reconstruction(self.dropout(encoded.last_hidden_state)).float()
        hidden = by_patch(masked if observed is None else masked & observed.bool())
        loss = ((prediction - target) ** 2 * hidden).sum() / hidden.sum().clamp(min=1)
        return MaskedPatchesOutput(loss=loss, prediction=prediction, target=target, hidden=hidden)


AutoConfig.register(SeriesConfig.model_type, SeriesConfig, exist_ok=True)
AutoModelForSequenceClassification.register(SeriesConfig, SeriesForClassification, exist_ok=True)
