"""Low-rank adapters (Hu et al. 2021) by `peft`, put into a classifier and merged into its weights again."""

from transformers import PreTrainedModel

from toolkit.errors import UserError
from toolkit.models.families import family


def add_lora(model: PreTrainedModel, rank: int) -> None:
    """Freeze the backbone of a classifier, and let low-rank changes of its attention's maps be trained, in place."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("training.tuning is lora, which needs the package peft. Install it (the extra `lora`), or "
                        "use another tuning.") from None
    if rank < 1:
        raise UserError(f"training.lora_rank is {rank}; it must be at least 1.")
    backbone = model.base_model
    known = family(backbone.config)
    backbone.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(known.lora_targets),
                                       fan_in_fan_out=known.weights_are_inputs_first), backbone)


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with the changes added to its weights and nothing left of the adapters, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, BaseTunerLayer):
                child.merge(safe_merge=True)
                setattr(module, name, child.get_base_layer())
    return model
