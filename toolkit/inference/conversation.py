"""A text written in turn with a language model."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import TextStreamer

from toolkit.errors import UserError
from toolkit.inference.generation import LanguageModel, continue_rows, decoding_of, open_model
from toolkit.views import View, Viewed


class Conversation(Viewed):
    """A text that a person and a GPT write in turn. The model reads its last tokens, as many as leave room to go on."""

    def __init__(self, model: str | Path | LanguageModel, max_new_tokens: int = 60, temperature: float = 0.8,
                 top_k: int = 0, top_p: float = 0.95, seed: int = 0, *, repetition_penalty: float = 1.0,
                 no_repeat_ngram_size: int = 0, stop_strings: str | Sequence[str] = ()):
        self.model = model if isinstance(model, LanguageModel) else open_model(model, "causal")
        self.decoding = decoding_of(
            self.model, max_new_tokens, temperature, top_k, top_p, repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size, stop_strings=stop_strings)
        self.room = self.model.positions - max_new_tokens
        if self.room < 1:
            raise UserError(f"max_new_tokens is {max_new_tokens}, but the model has {self.model.positions} positions, "
                            f"for the text before and the answer together. Give fewer.")
        self.seed, self.turns, self.ids = seed, 0, []

    def _shown(self) -> View:
        return View(f"conversation with {self.model.name}", {"turns": self.turns, "tokens": len(self.ids),
                                                             "forgotten": self.forgotten})

    @property
    def forgotten(self) -> int:
        """How many of the first tokens the model no longer sees."""
        return max(0, len(self.ids) - self.room)

    def say(self, text: str, stream: bool = False) -> str:
        """Add `text` as a line of its own and give the model's continuation; stream: to the screen, too, as it comes.
        """
        ids = self.model.tokenizer(("\n" if self.ids else "") + text, add_special_tokens=False)["input_ids"]
        said = self.ids + ids
        streamer = TextStreamer(self.model.tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None
        with torch.random.fork_rng():
            torch.manual_seed(self.seed + self.turns)
            answer = continue_rows(self.model, [said[-self.room:]], self.decoding, streamer)[0]
        self.ids, self.turns = said + answer, self.turns + 1  # only now: an answer that was broken off leaves no trace
        return self.model.tokenizer.decode(answer, skip_special_tokens=True)

    def reset(self) -> None:
        """Forget what was written."""
        self.ids = []
