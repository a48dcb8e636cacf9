"""Tokenizers from YAML specs: trained on the train split, saved so that `AutoTokenizer.from_pretrained` needs no more.

WordPiece (Wu et al. 2016; Devlin et al. 2018) for BERT, byte-level BPE (Radford et al. 2019) for GPT, characters.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from toolkit import config as configuration
from toolkit.errors import UserError
from toolkit.run import write_directory, write_json

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<unk>"


@dataclass
class TokenizerSpec:
    algorithm: Literal["wordpiece", "byte-level-bpe", "character"]
    """How text is cut: WordPiece for BERT, byte-level BPE or characters for GPT."""
    vocab_size: int
    """At most this many entries, special tokens included; a small corpus may give fewer."""
    lowercase: bool = False
    """Lower-case and strip accents first (BERT's "uncased"); WordPiece only."""
    min_frequency: int = 2
    """Pairs seen less often are not merged."""
    model_max_length: int = 512
    """Told to whoever loads the tokenizer."""


def read_spec(path: str | Path) -> TokenizerSpec:
    """A spec from `tokenizers/*.yaml`."""
    spec = configuration.from_dict(TokenizerSpec, configuration.read_yaml(path), str(path))
    if spec.lowercase and spec.algorithm != "wordpiece":
        raise UserError(f"{path}: 'lowercase' is for wordpiece; {spec.algorithm} keeps the text exactly.")
    return spec


def train_tokenizer(spec: TokenizerSpec, texts: Iterable[str], length: int | None = None,
                    progress: bool = True) -> PreTrainedTokenizerFast:
    """Train on an iterator of texts (streamed; `length` only feeds the progress bar)."""
    common = {"vocab_size": spec.vocab_size, "show_progress": progress}
    if spec.algorithm == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=spec.lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                   "mask_token": "[MASK]"}
        _train_wordpiece(tokenizer, spec, list(texts), list(special.values()), progress)
    elif spec.algorithm == "byte-level-bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
        trainer = trainers.BpeTrainer(min_frequency=spec.min_frequency, special_tokens=[END_OF_TEXT],
                                      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), **common)
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": UNKNOWN}
        trainer = trainers.WordLevelTrainer(min_frequency=1, special_tokens=[END_OF_TEXT, UNKNOWN], **common)
    if spec.algorithm != "wordpiece":
        tokenizer.train_from_iterator(texts, trainer, length=length)
    names = ["input_ids", "attention_mask"]
    if spec.algorithm == "wordpiece":
        ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ids)
        names = ["input_ids", "token_type_ids", "attention_mask"]  # transformers would leave the types out
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=spec.model_max_length,
                                   model_input_names=names, clean_up_tokenization_spaces=False, **special)


def _train_wordpiece(tokenizer: Tokenizer, spec: TokenizerSpec, texts: list[str], special: list[str],
                     progress: bool) -> None:
    # The trainer numbers the pieces "##x" in the order of a hash table, and ties between merges by those numbers, so
    # that no two trainings agree. Given as the first entries, in order, they make it deterministic.
    counts = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    alphabet = sorted(sorted(filter(str.strip, counts), key=lambda char: (-counts[char], char))[:1000])
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.normalizer, scratch.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    scratch.train_from_iterator(texts, trainers.WordPieceTrainer(
        vocab_size=spec.vocab_size, min_frequency=spec.min_frequency, show_progress=progress,
        special_tokens=[*special, *(f"##{char}" for char in alphabet)], initial_alphabet=alphabet,
        limit_alphabet=len(alphabet)))
    tokenizer.model = models.WordPiece(scratch.get_vocab(), unk_token="[UNK]")
    tokenizer.add_special_tokens(special)


def prepare_tokenizer(source: str, texts: Iterable[str], directory: Path, length: int | None = None,
                      progress: bool = True) -> PreTrainedTokenizerBase:
    """`source` is a spec (.yaml), trained once into `directory`, or an existing tokenizer's directory or hub id."""
    if not source.endswith((".yaml", ".yml")):
        return load_tokenizer(source)
    spec = read_spec(source)
    if (directory / "tokenizer.json").exists():
        made_from = configuration.read_yaml(directory / "spec.yaml")
        if made_from != asdict(spec):
            raise UserError(f"{directory}: was trained from another spec than {source} is now. Choose another "
                            f"data_dir, or delete it.")
        return load_tokenizer(str(directory))

    def fill(temporary: Path) -> None:
        tokenizer = train_tokenizer(spec, texts, length, progress)
        tokenizer.save_pretrained(temporary)
        (temporary / "spec.yaml").write_text(configuration.dump(spec), encoding="utf-8")
        write_json(temporary / "manifest.json", {"fingerprint": fingerprint(tokenizer), "vocab_size": len(tokenizer)})

    write_directory(directory, fill)
    return load_tokenizer(str(directory))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A fast tokenizer from a directory, or from the hub when the name is no path."""
    if Path(name).is_dir():
        if not (Path(name) / "tokenizer.json").exists():
            raise UserError(f"{name}: holds no tokenizer.json. Give a directory written by save_pretrained, or a spec "
                            f"from tokenizers/*.yaml.")
    elif "/" not in name or name.startswith((".", "/")) or name.count("/") > 1:
        raise UserError(f"{name}: no such tokenizer directory or spec. The specs that ship are in tokenizers/*.yaml.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: no tokenizer could be loaded ({str(error).splitlines()[0]}). Give a directory, a "
                        f"spec from tokenizers/*.yaml, or a hub id while online.") from None
    if not tokenizer.is_fast:
        raise UserError(f"{name}: only fast tokenizers (with a tokenizer.json) are supported.")
    return tokenizer


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what the tokenizer does (its tokenizer.json), whatever directory it lies in."""
    return hashlib.sha256(plain_backend(tokenizer).to_str().encode()).hexdigest()


def plain_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy without the truncation and padding that transformers leaves switched on by the call before."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def ordinary_ids(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """The ids that stand for text: all but the special ones."""
    return np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)


def token_byte_lengths(tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """(vocab,) UTF-8 bytes of text that each id stands for; 0 for special tokens. Byte-level BPE and characters only.

    Byte-level BPE writes each byte as one printable character (Radford et al. 2019), so a token's length is its bytes.
    """
    byte_level = "ByteLevel" in tokenizer.backend_tokenizer.decoder.__class__.__name__
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    lengths = np.asarray([len(token) if byte_level else len(token.encode()) for token in tokens])
    lengths[tokenizer.all_special_ids] = 0
    return lengths


def texts_in_paragraphs(texts: Iterable[str]) -> Iterator[str]:
    """Whole documents cut at blank lines, so that no trainer ever holds more than a paragraph at a time."""
    for text in texts:
        yield from re.findall(r"(?s).+?(?:\n\n|$)", text)
