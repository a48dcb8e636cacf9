"""Ask a finished model something: masked words from a BERT, continuations from a GPT.

Everything is computed by transformers' own `FillMaskPipeline` and `generate`. A model is named by its directory, by its
run's directory, or by a hub id; a loop that asks often opens it once (`open_model`) and passes it on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import transformers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, StopStringCriteria, TextStreamer

from toolkit.errors import UserError
from toolkit.models.load import checkpoint_config, load_checkpoint_tokenizer, load_weights, model_directory
from toolkit.run.provenance import without_machine_paths
from toolkit.views import View, Viewed

Kind = Literal["masked", "causal"]

_KINDS = {  # how the names of architectures end, what such a model does, and what the others are for
    "masked": (("ForMaskedLM", "ForPreTraining"), "fills blanks", "recipes/fill_mask.py"),
    "causal": (("ForCausalLM", "LMHeadModel"), "continues text", "recipes/generate.py"),
}


@dataclass(frozen=True, repr=False)
class LanguageModel(Viewed):
    """A model with its tokenizer, ready to be asked."""

    name: str
    """As it was named, but for paths of this machine."""
    kind: Kind
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def _shown(self) -> View:
        what = "fills masks" if self.kind == "masked" else "continues texts"
        return View(f"language model {self.name}", {
            "it": what, "parameters": self.model.num_parameters(), "vocabulary": len(self.tokenizer),
            "positions": self.positions})

    @property
    def positions(self) -> int:
        """The most tokens it can see at once; of a model without positions, as many as its tokenizer is meant for."""
        return getattr(self.model.config, "max_position_embeddings", None) or self.tokenizer.model_max_length


@dataclass(frozen=True, repr=False)
class Continuation(Viewed):
    """What a model wrote after a prompt; `str()` is both together."""

    prompt: str
    text: str
    new_tokens: int
    stopped: Literal["end of text", "stop string", "length", "positions"]
    """Why it ended: by its own end token, with one of stop_strings, at max_new_tokens, or because its positions were
    used up before that."""

    def __str__(self) -> str:
        return self.prompt + self.text

    def _shown(self) -> View:
        return View(f"{self.prompt}▸{self.text}", {"new tokens": self.new_tokens, "ended by": self.stopped})


def open_model(name: str | Path, kind: Kind | None = None) -> LanguageModel:
    """Load a BERT (`masked`) or a GPT (`causal`), onto the GPU where there is one; None: whichever it is.

    UserError where there is no model, for one of the other kind, and for weights that are missing, damaged or NaN.
    """
    directory = model_directory(name)
    architectures = checkpoint_config(directory).architectures or ["model without a head"]
    is_kind = [each for each, (endings, _, _) in _KINDS.items()
               if any(architecture.endswith(endings) for architecture in architectures)]
    if kind not in (None, *is_kind) or not is_kind:
        wanted = " or ".join(_KINDS[each][1] for each in ([kind] if kind else _KINDS))
        if is_kind:
            remedy = f"It {_KINDS[is_kind[0]][1]}: {_KINDS[is_kind[0]][2]}."
        elif any("Classification" in architecture for architecture in architectures):
            remedy = "It classifies: recipes/predict.py."
        else:
            remedy = "Pretrain one: make pretrain-bert, make pretrain-gpt."
        raise UserError(f"{name}: is a {', '.join(architectures)}, not a model that {wanted}. {remedy}")
    kind = kind or is_kind[0]
    tokenizer = load_checkpoint_tokenizer(directory)
    loader = transformers.AutoModelForMaskedLM if kind == "masked" else transformers.AutoModelForCausalLM
    model = load_weights(loader, directory, name)
    if kind == "causal":
        model.generation_config.max_length = None  # for those who give no length; here every call gives one
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return LanguageModel(without_machine_paths(str(name)), kind, model.to(device).eval(), tokenizer)


# Continuations


def generate(model: str | Path | LanguageModel, prompts: str | Sequence[str], *, max_new_tokens: int = 60,
             temperature: float = 0.8, top_k: int = 0, top_p: float = 0.95, num_beams: int = 1,
             length_penalty: float = 1.0, num_return_sequences: int = 1, repetition_penalty: float = 1.0,
             no_repeat_ngram_size: int = 0, stop_strings: str | Sequence[str] = (), seed: int = 0,
             batch_size: int = 8, stream: bool = False, places: Sequence[str] = ()) -> list[Continuation]:
    """Continue each of the prompts, `num_return_sequences` times; in the order of the prompts.

    temperature: 0 takes the likeliest token each time (greedy); top_k, top_p: sample from the likeliest k tokens, or
        from the fewest that together have this probability (Holtzman et al. 2020); 0 and 1 leave none out.
    num_beams: more than 1 searches for a likely text and samples nothing; its candidates compete by their log
        probability / length ** length_penalty, so that more than 0 favours long ones and less than 0 short ones.
    repetition_penalty: more than 1 makes tokens that were written less likely, less than 1 likelier (Keskar et al.
        2019, section 4.1); no_repeat_ngram_size: so many tokens in a row are written only once, 0: as often as they
        come. Both count the prompt in.
    stop_strings: a text ends with the first token that completes one of them, and keeps it.
    seed: the same prompts, batch_size and seed give the same text.
    batch_size: prompts continued at once. What is not sampled does not depend on it.
    stream: write the one prompt and its continuation to the screen as they come.
    places: where each prompt stands, for messages.

    A continuation ends where the model's positions do (`stopped`); UserError for a prompt that leaves none.
    """
    opened = model if isinstance(model, LanguageModel) else open_model(model, "causal")
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    decoding = decoding_of(opened, max_new_tokens, temperature, top_k, top_p, num_beams, length_penalty,
                           num_return_sequences, repetition_penalty, no_repeat_ngram_size, stop_strings)
    if stream and (len(prompts) != 1 or num_beams != 1 or num_return_sequences != 1):
        raise UserError("Only one continuation of one prompt, without beams, can be shown as it comes.")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1.")
    places = places or [f"prompt {number}" for number in range(1, len(prompts) + 1)]
    rows = [_prompt_ids(opened, prompt, place) for prompt, place in zip(prompts, places, strict=True)]
    streamer = TextStreamer(opened.tokenizer, skip_special_tokens=True) if stream else None
    # Together are continued only rows that may become longer by as many tokens: then no row is cut for another's sake.
    left = [min(max_new_tokens, opened.positions - len(row)) for row in rows]
    # What looks at the tokens before would see what pads a row, too: then only rows of one length are together.
    looks_back = repetition_penalty != 1 or no_repeat_ngram_size or decoding.stop_strings
    alike = [(left[index], len(row) if looks_back else 0) for index, row in enumerate(rows)]
    order = sorted(range(len(rows)), key=lambda index: (left[index], len(rows[index])))
    answers: list[list[Continuation]] = [[] for _ in rows]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        while order:
            batch = [index for index in order[:batch_size] if alike[index] == alike[order[0]]]
            order = order[len(batch):]
            decoding.max_new_tokens = left[batch[0]]
            new = continue_rows(opened, [rows[index] for index in batch], decoding, streamer)
            for index, ids in zip((each for each in batch for _ in range(num_return_sequences)), new, strict=True):
                answers[index].append(_continuation(opened, prompts[index], rows[index], ids, decoding,
                                                    left[index] < max_new_tokens))
    return [answer for each in answers for answer in each]


def continue_text(model: str | Path | LanguageModel, prompt: str, max_new_tokens: int = 60, temperature: float = 0.8,
                  top_p: float = 0.95, seed: int = 0) -> str:
    """`prompt` and one sampled continuation."""
    return str(generate(model, prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p,
                        seed=seed)[0])


def decoding_of(opened: LanguageModel, max_new_tokens: int, temperature: float, top_k: int, top_p: float,
                num_beams: int = 1, length_penalty: float = 1.0, num_return_sequences: int = 1,
                repetition_penalty: float = 1.0, no_repeat_ngram_size: int = 0, stop_strings: str | Sequence[str] = ()
                ) -> GenerationConfig:
    """What transformers' `generate` is told; UserError for settings that make no sense."""
    for name, value in (("max_new_tokens", max_new_tokens), ("num_beams", num_beams),
                        ("num_return_sequences", num_return_sequences)):
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1.")
    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise UserError(f"temperature is {temperature}, top_k {top_k}, top_p {top_p}; expected at least 0, at least 0, "
                        f"and more than 0 up to 1.")
    if repetition_penalty <= 0 or no_repeat_ngram_size < 0:
        raise UserError(f"repetition_penalty is {repetition_penalty}, no_repeat_ngram_size {no_repeat_ngram_size}; "
                        f"expected more than 0 (1: no penalty), and at least 0 (0: any may come again).")
    if length_penalty != 1 and num_beams == 1:
        raise UserError(f"length_penalty is {length_penalty}, which only beam search uses: set num_beams, to 4 say.")
    samples = temperature > 0 and num_beams == 1
    if num_return_sequences > 1 and not samples and num_return_sequences > num_beams:
        raise UserError(f"num_return_sequences is {num_return_sequences}, but "
                        f"{f'{num_beams} beams' if num_beams > 1 else 'greedy decoding'} can give only {num_beams}. "
                        f"Raise num_beams, or sample with a temperature above 0.")
    # Nothing of the model's own generation_config: what is asked for is what is done.
    own = opened.model.generation_config
    how = {"temperature": float(temperature), "top_k": top_k, "top_p": float(top_p)} if samples else {}
    how |= {"num_beams": num_beams, "length_penalty": float(length_penalty)} if num_beams > 1 else {}
    how |= {"repetition_penalty": float(repetition_penalty)} if repetition_penalty != 1 else {}
    how |= {"no_repeat_ngram_size": no_repeat_ngram_size} if no_repeat_ngram_size else {}
    if stop_strings:
        how["stop_strings"] = _writable(opened, [stop_strings] if isinstance(stop_strings, str) else stop_strings)
    return GenerationConfig(do_sample=samples, max_new_tokens=max_new_tokens, eos_token_id=own.eos_token_id,
                            pad_token_id=_pad_id(opened), num_return_sequences=num_return_sequences, **how)


def _writable(opened: LanguageModel, stop_strings: Sequence[str]) -> list[str]:
    """stop_strings; UserError for one that the tokenizer has no tokens for, and that would never stop anything."""
    for text in stop_strings:
        ids = opened.tokenizer(text, add_special_tokens=False)["input_ids"]
        try:
            is_seen = bool(ids) and bool(StopStringCriteria(opened.tokenizer, [text])(torch.tensor([ids]), None))
        except ValueError:  # no token ends as this string does
            is_seen = False
        if not is_seen:
            raise UserError(f"stop_strings holds {text!r}, which the model never writes: its tokenizer reads it as "
                            f"{opened.tokenizer.decode(ids)!r}. Give a string as the model writes it.")
    return list(stop_strings)


def _pad_id(opened: LanguageModel) -> int:
    return opened.tokenizer.pad_token_id or 0


def _start(opened: LanguageModel) -> list[int]:
    """What an empty text begins with: the end of the document before it."""
    start = opened.tokenizer.bos_token_id
    if start is None:
        start = opened.tokenizer.eos_token_id
    return [] if start is None else [start]


def _prompt_ids(opened: LanguageModel, prompt: str, which: str) -> list[int]:
    ids = opened.tokenizer(prompt)["input_ids"] or _start(opened)
    if not ids:
        raise UserError(f"{which}: is empty, and the tokenizer has no token to begin with. Give some text.")
    if len(ids) >= opened.positions:
        raise UserError(f"{which}: has {len(ids)} tokens, but the model has {opened.positions} positions, for the "
                        f"prompt and what follows together. Shorten it: {prompt[:40]!r} …")
    return ids


def continue_rows(opened: LanguageModel, rows: Sequence[list[int]], decoding: GenerationConfig,
              streamer: TextStreamer | None = None) -> list[list[int]]:
    """Rows of ids → the ids that follow each, `num_return_sequences` times, up to the end token or a stop string."""
    longest = max(map(len, rows))
    # Padded on the left: what comes next must stand next to the prompt.
    ids = torch.tensor([[_pad_id(opened)] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    device = opened.model.device
    output = opened.model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), streamer=streamer,
                                   generation_config=decoding,
                                   **({"tokenizer": opened.tokenizer} if decoding.stop_strings else {}))
    prompts = [row for row in rows for _ in range(decoding.num_return_sequences)]
    return [_own(opened, prompt, new, decoding)
            for prompt, new in zip(prompts, output[:, longest:].tolist(), strict=True)]


def _own(opened: LanguageModel, prompt: list[int], new: list[int], decoding: GenerationConfig) -> list[int]:
    """The new tokens without what fills their row after the text's end."""
    ends = decoding.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    new = new[:next((place + 1 for place, token in enumerate(new) if token in ends), None)]
    if not decoding.stop_strings:
        return new
    return new[:next((count for count in range(1, len(new)) if _is_stopped(opened, prompt + new[:count], decoding)),
                     None)]


def _is_stopped(opened: LanguageModel, ids: list[int], decoding: GenerationConfig) -> bool:
    """Whether the last of these tokens completes a stop string."""
    return bool(decoding.stop_strings) and bool(
        StopStringCriteria(opened.tokenizer, decoding.stop_strings)(torch.tensor([ids]), None))


def _continuation(opened: LanguageModel, prompt: str, row: list[int], new: list[int], decoding: GenerationConfig,
                  is_cut: bool) -> Continuation:
    def decode(ids: list[int]) -> str:
        return opened.tokenizer.decode(ids, skip_special_tokens=True)

    ends = opened.model.generation_config.eos_token_id
    if new and new[-1] in (ends if isinstance(ends, list) else [ends]):
        stopped = "end of text"
    elif _is_stopped(opened, row + new, decoding):
        stopped = "stop string"
    else:
        stopped = "positions" if is_cut else "length"
    # Not decode(new): some tokenizers drop the blank before a text's first word.
    text = decode(row + new).removeprefix(decode(row))
    return Continuation(prompt, text, len(new), stopped)


# Blanks


def fill_masks(model: str | Path | LanguageModel, texts: Sequence[str], top_k: int = 5, batch_size: int = 32,
               places: Sequence[str] = ()) -> list[list[list[tuple[str, float]]]]:
    """Text → mask → the `top_k` likeliest tokens with their probabilities; each mask by itself, the others unknown.

    places: where each text stands, for messages.

    UserError for a text without a mask, or with more tokens than the model has positions.
    """
    opened = model if isinstance(model, LanguageModel) else open_model(model, "masked")
    mask = opened.tokenizer.mask_token
    if mask is None:
        raise UserError(f"{opened.name}: its tokenizer has no mask token. Use the tokenizer it was trained with.")
    if not 1 <= top_k <= len(opened.tokenizer):
        raise UserError(f"top_k is {top_k}; it must lie between 1 and the vocabulary's {len(opened.tokenizer)}.")
    counts = []
    for text, place in zip(texts, places or ["text"] * len(texts), strict=True):
        ids = opened.tokenizer(text)["input_ids"]
        counts.append(ids.count(opened.tokenizer.mask_token_id))
        if not counts[-1]:
            raise UserError(f"{place}: holds no {mask}. Put {mask} where a word is missing: {text[:60]!r}")
        if len(ids) > opened.positions:
            raise UserError(f"{place}: has {len(ids)} tokens, but the model has {opened.positions} positions. Shorten "
                            f"it: {text[:60]!r} …")
    pipeline = transformers.FillMaskPipeline(model=opened.model, tokenizer=opened.tokenizer, top_k=top_k,
                                             device=opened.model.device)
    found = pipeline(list(texts), batch_size=batch_size)
    found = [found] if len(texts) == 1 else found  # which it takes out of its list
    answers = []
    for count, masks in zip(counts, found, strict=True):
        masks = [masks] if count == 1 else masks
        answers.append([[(opened.tokenizer.convert_ids_to_tokens(guess["token"]), guess["score"]) for guess in guesses]
                        for guesses in masks])
    return answers


def fill_mask(model: str | Path | LanguageModel, text: str, top_k: int = 5) -> list[tuple[str, float]]:
    """The `top_k` likeliest tokens, with probabilities, for the first mask in `text`."""
    return fill_masks(model, [text], top_k)[0][0]
