"""Write a text with a GPT, in turn: what you type, it continues.

    make chat MODEL=runs/gpt-5min

It was never taught to answer questions: it goes on with the text as its corpus would. It sees what was written so far,
as many tokens of it as fit. /reset begins anew, /quit or Ctrl-D ends, Ctrl-C breaks an answer off.
"""

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolkit import cli, config

if TYPE_CHECKING:
    from toolkit.inference.conversation import Conversation


@dataclass
class ChatConfig:
    model: str
    """A directory, a run's directory or a hub id."""
    max_new_tokens: int = 60
    temperature: float = 0.8
    """0: greedy."""
    top_k: int = 0
    """Sample from so many of the likeliest tokens; 0: from all."""
    top_p: float = 0.95
    """Sample from the fewest tokens that together have this probability; 1: from all."""
    repetition_penalty: float = 1.0
    """More than 1 makes tokens less likely that were written or are in the text (Keskar et al. 2019); 1: off."""
    no_repeat_ngram_size: int = 0
    """So many tokens in a row come only once, the text counted in; 0: as often as they come."""
    stop_strings: list[str] = field(default_factory=list)
    """End an answer with the first of these: --stop_strings "." or, as YAML, --stop_strings '["\\n", "The end"]'."""
    seed: int = 0


def main(argv: list[str]) -> None:
    settings = config.parse(ChatConfig, argv, __doc__, ["model"])
    from toolkit.inference.conversation import Conversation  # only now: --help waits for no library
    from toolkit.report.ending import command, ending

    talk = Conversation(settings.model, settings.max_new_tokens, settings.temperature, settings.top_k, settings.top_p,
                        settings.seed, repetition_penalty=settings.repetition_penalty,
                        no_repeat_ngram_size=settings.no_repeat_ngram_size, stop_strings=settings.stop_strings)
    asks = sys.stdin.isatty()
    if asks:
        import readline  # noqa: F401 - lines can be edited, and called back

        print(f"{settings.model} continues what you write. /reset, /quit (or Ctrl-D).")
    talk_until_quit(talk, asks)
    if asks:
        told = f"{talk.turns} {'text' if talk.turns == 1 else 'texts'} continued; the same words and seed give the same"
        print(ending(None, command("make app", {"MODEL": settings.model}), told))


def talk_until_quit(talk: "Conversation", asks: bool) -> None:
    """asks: of somebody at a terminal."""
    has_told = False
    while True:
        try:
            text = input("> " if asks else "").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text == "/quit":
            return
        if text == "/reset":
            talk.reset()
            has_told = False
            print("(begins anew)")
        elif text.startswith("/") and " " not in text:
            print("(/reset begins anew, /quit ends; everything else is continued)")
        elif text:
            try:
                print("" if asks else text, end="", flush=True)
                talk.say(text, stream=True)
            except KeyboardInterrupt:
                print(" (broken off; not kept)")
            if talk.forgotten and not has_told:
                has_told = True
                print(f"(from here on it sees the last {talk.room} tokens alone)")


if __name__ == "__main__":
    cli.run(main)
