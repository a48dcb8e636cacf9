"""How a classifier's texts become tokens: saved with it, so that other texts are read as those it learned."""

import copy
from dataclasses import dataclass, fields
from pathlib import Path

from tokenizers import processors
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from toolkit.data.text.labelled import LongTexts
from toolkit.errors import UserError, did_you_mean
from toolkit.run.files import read_json, write_json
from toolkit.run.schema import SavedTextInput, checked
from toolkit.tokenization.load import save_tokenizer


@dataclass(frozen=True)
class TextInput:
    """`text_input` in a classifier's config.json."""

    max_length: int
    """Tokens of the longest text; longer ones are cut as `long_texts` says."""
    long_texts: LongTexts = "windows"
    pairs: bool | None = None
    """Whether it learned two texts together; None: not known."""
    joint: int | None = None
    """Token between two texts, where the tokenizer puts none. GPT's tokenizers do not: the token that ends its
    documents does (Radford et al. 2018 learn a delimiter)."""
    empty: int | None = None
    """What stands for a text of nothing that the tokenizer knows: it must still be a row that a mean can be taken of.
    """
    split_special_tokens: bool = True
    """"[SEP]" in a text is text, as in pretraining, and not the end of one."""

    @classmethod
    def new(cls, tokenizer: PreTrainedTokenizerBase, max_length: int, long_texts: LongTexts, positions: int | None,
            pairs: bool) -> "TextInput":
        """positions: those of the model, to which `head` and `head+tail` cut where they are fewer than max_length."""
        limit = max_length if long_texts == "windows" or positions is None else min(max_length, positions)
        joins = tokenizer.num_special_tokens_to_add(True) > tokenizer.num_special_tokens_to_add(False)
        return cls(limit, long_texts, pairs, None if joins else tokenizer.eos_token_id, pad_id(tokenizer))

    @classmethod
    def of(cls, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> "TextInput":
        """That of a saved classifier. One without it, from before or from elsewhere, is asked as transformers'
        pipeline asks it: the first `model_max_length` tokens, control tokens in a text read as such.
        """
        if saved := getattr(config, "text_input", None):
            return cls._saved(saved, config, len(tokenizer))
        reads_windows = hasattr(config, "backbone_config")
        positions = None if reads_windows else getattr(config, "max_position_embeddings", None)
        old = cls.new(tokenizer, tokenizer.model_max_length, "head", positions, False)
        return cls(old.max_length, "head", None, old.joint, old.empty, split_special_tokens=False)


    @classmethod
    def _saved(cls, saved: object, config: PreTrainedConfig, tokens: int) -> "TextInput":
        """UserError for what no version has written; tokens: those that the tokenizer has."""
        where = f"{config.name_or_path or 'the model'}: text_input in config.json"
        try:
            checked(saved, SavedTextInput, "it")
            names = [item.name for item in fields(cls)]
            if unknown := sorted(saved.keys() - set(names)):
                raise UserError(f"has an unknown key '{unknown[0]}'.{did_you_mean(unknown[0], names)}")
            if saved["max_length"] < 1:
                raise UserError("its 'max_length' is 0")
            if other := [name for name in ("joint", "empty") if (saved.get(name) or 0) >= tokens]:
                raise UserError(f"its '{other[0]}' is {saved[other[0]]:,}; the tokenizer has {tokens:,} tokens")
        except UserError as error:
            raise UserError(f"{where}: {str(error).removeprefix('it: ').rstrip('.')}. Fetch the model again, or read "
                            f"it with the version that made it.") from None
        return cls(**saved)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def save_with_input(tokenizer: PreTrainedTokenizerBase, text_input: TextInput, directory: Path) -> None:
    """Beside a classifier, and such that transformers' pipeline reads texts as the classifier learned them, where a
    tokenizer can: cut to the same length, pairs joined, control tokens taken for text. Head and tail it cannot cut.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = text_input.max_length
    # A class of its own builds its backend anew when it is loaded, and would forget the joint.
    if text_input.joint is not None and type(tokenizer) is PreTrainedTokenizerFast:
        joint = tokenizer.convert_ids_to_tokens(text_input.joint)
        join = processors.TemplateProcessing(single="$A", pair=f"$A {joint} $B",
                                             special_tokens=[(joint, text_input.joint)])
        backend = tokenizer.backend_tokenizer
        before = [backend.post_processor] if backend.post_processor else []
        backend.post_processor = processors.Sequence([*before, join])
    save_tokenizer(tokenizer, directory)
    path = Path(directory) / "tokenizer_config.json"  # which save_pretrained leaves this out of
    values = read_json(path, dict) | {"split_special_tokens": text_input.split_special_tokens}
    write_json(path, dict(sorted(values.items())))
