"""The model's card: README.md of a run, in Hugging Face's form, made from the run's directory alone.

    regenerate("runs/demo/bert")        # README.md, and its pictures beside it

It is written at every evaluation, so that there is one of a run that was stopped, and when the run ends.
"""

import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from toolkit.config import from_dict
from toolkit.errors import UserError
from toolkit.publishing import card_data, card_metadata, card_pictures, card_results, card_text
from toolkit.publishing.card_facts import Facts
from toolkit.publishing.card_samples import Samples
from toolkit.regular import regular
from toolkit.run.directory import home
from toolkit.run.files import write_atomic
from toolkit.run.model_card import CardConfig
from toolkit.shown import as_code, in_markdown

MARK = "<!-- Written by pretraining-toolkit out of the run's files; `make card` writes it anew. -->"
_HELD_OUT, _END_OF_HELD_OUT = "<!-- Out of held-out data. -->", "<!-- End of held-out data. -->"
"""Around what stays on this machine unless it is asked for, as tables of predictions do."""
LARGEST_SHARE = 0.01  # of the time of a training, for its cards


def regenerate(directory: str | Path, repository: str | None = None) -> Path:
    """Write a run's card, and its pictures, from what lies in its directory; returns the card's path.

    repository: the hub id that its code loads the model from; default the folder beside the card.
    UserError when it is no run's directory, has another README.md, or states what the hub would not take.
    """
    facts = Facts.of(directory)
    path = facts.directory / "README.md"
    if path.exists() and MARK not in regular(path).read_text(encoding="utf-8"):
        raise UserError(f"{path}: was not written by this toolkit, and is left alone. Move it away to have the run's "
                        f"card there.")
    card_pictures.draw(facts, Samples(facts).figure())
    write_atomic(path, text(facts, repository))
    return path


def text(facts: Facts, repository: str | None = None) -> str:
    """The card: metadata between lines of ---, then Markdown. Read by huggingface_hub once, so that what does not come
    back as it was is never written.
    """
    from huggingface_hub import ModelCard

    card = stated(facts)
    card.check()
    metadata = card_metadata.data(facts, card)
    title = repository.partition("/")[2] if repository else facts.name
    body = "\n\n".join([f"# {in_markdown(title)}\n\n{_top(facts)}", *(
        f"## {name}\n\n{content}" for name, content in _sections(facts, card, repository) if content)])
    whole = f"---\n{metadata.to_yaml()}\n---\n\n{body}\n\n{MARK}\n"
    if ModelCard(whole).data.to_dict() != metadata.to_dict():
        raise ValueError(f"{facts.directory}: the metadata of the card do not read back as they were")
    return whole


def _top(facts: Facts) -> str:
    """What it is, and what came of it in words."""
    answer = card_results.answer(facts)
    return "\n\n".join(filter(None, [card_text.heading(facts), f"**{in_markdown(answer)}**" if answer else ""]))


def _sections(facts: Facts, card: CardConfig, repository: str | None) -> Iterator[tuple[str, str]]:
    """(title, content) in the card's order; what has no content is left out."""
    yield "Results", card_results.results(facts)
    title, samples = Samples(facts).section((facts.directory / card_pictures.SAMPLES).is_file())
    yield title, samples if facts.is_public or not samples else f"{_HELD_OUT}\n\n{samples}\n\n{_END_OF_HELD_OUT}"
    if facts.model:
        beside = as_code(f"{facts.directory.name}/model")
        where = "" if repository else f" `./model` is the folder beside this file, {beside}."
        yield "How to use it", (f"```python\n{card_text.usage(facts, repository or './model')}\n```\n\n"
                                f"{_needs(facts)}{where}")
        yield "The model", card_text.architecture(facts)
    yield "Its models", "\n".join(f"* [`{path.relative_to(facts.directory)}`]({path.relative_to(facts.directory)}"
                                  f"/README.md)" for path in facts.kept)
    description = card_text.describe(facts)
    yield ("What it saw" if description and description.is_pretraining else "The data"), card_data.data(facts, card)
    yield "Tokenizer", card_data.tokenizer(facts)
    yield "Training", "\n\n".join(filter(None, [card_text.training(facts),
                                                card_pictures.shown(facts, card_pictures.CURVES)]))
    yield "Limits and risks", card_results.limits(facts, card)
    yield "How it was made", card_text.provenance(facts)
    yield "Licence and author", (f"Licence of the model: {card.license or card_text.NOT_STATED}. Author: "
                                 f"{in_markdown(card.author) or card_text.NOT_STATED}.")


def without_held_out(card: str) -> str:
    """A card without samples of data that may be somebody's own."""
    return re.sub(rf"^## [^\n]+\n\n{_HELD_OUT}.*?{_END_OF_HELD_OUT}\n\n", "", card, flags=re.DOTALL | re.MULTILINE)


def stated(facts: Facts) -> CardConfig:
    """What the configuration says for the card; keys of other versions are passed over."""
    known = {item.name for item in fields(CardConfig)}
    values = facts.config.get("card") or {}
    return from_dict(CardConfig, {key: value for key, value in values.items() if key in known}, "config.yaml", "card.")


def _needs(facts: Facts) -> str:
    if facts.module is None and not facts.series_sources:
        # Saved so before, tokenizers have a name that only transformers 5 knows (`save_tokenizer`).
        versions = "5" if (facts.tokenizer or {}).get("tokenizer_class") == "TokenizersBackend" else "4.57 or 5"
        return f"It needs transformers, of version {versions}, and nothing of what made it."
    return "It needs the package that made it, pretraining-toolkit."


# --- while a run goes on -------------------------------------------------------------------------------------------


def refresh(directory: str | Path) -> None:
    """`regenerate` for the run that a directory is or is a part of, if any, and, once that has ended, for the models
    it kept. Cards of other runs stay as they are. A failure is said, and stops nothing.
    """
    place = home(directory)
    if place is None:
        return
    try:
        regenerate(place)
        facts = Facts.of(place)
        if facts.result is not None and "models" in facts.config:
            for run in facts.kept:
                regenerate(run)
    except Exception as error:  # noqa: BLE001 - a card is worth less than what it tells of
        warnings.warn(f"{place}/README.md could not be written: {error}", stacklevel=2)


class LiveCard:
    """An observer of runs that keeps their cards: written anew at evaluations, unless that takes more than a hundredth
    of the time, and whenever something is finished.
    """

    def __init__(self) -> None:
        self.began, self.spent = time.monotonic(), 0.0

    def __call__(self, directory: Path, finished: bool = False) -> None:
        now = time.monotonic()
        if finished or self.spent <= LARGEST_SHARE * (now - self.began):
            refresh(directory)
            self.spent += time.monotonic() - now
