"""The last lines of a recipe: what came out, beside guessing; where it lies; the next command."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from toolkit.options.option_help import continued
from toolkit.report.run_list import figure_text, judged_arm, mean_of
from toolkit.run.results import Results, read_results

_PLACES = {"page": "report.html", "model": "model", "card": "README.md", "pictures": "plots"}
"""What it is called → what a run's directory may hold."""
_GUESSES = ("majority class", "majority", "repeat-last", "repeat the last", "copy of the source")
"""Arms that do not look at the input, or hardly, as experiments name them."""


def ending(directory: str | Path | None, following: str, answer: str = "", **places: str | Path) -> str:
    """A short block to print last. directory: the run's, None where there is none. answer: in a line; of an experiment
    it is taken from its rows. places: more of them, by what they are called; those of every run are found.
    """
    there, results = {}, None
    if directory is not None:
        there = {name: Path(directory, inside) for name, inside in _PLACES.items()}
        results = None if answer else read_results(Path(directory))
    there |= {name: Path(path) for name, path in places.items()}
    lines = [(f"{name}:", str(path)) for name, path in there.items() if path.exists()]
    wide = max(len(name) for name, _ in [*lines, ("next:", "")])
    lines.append(("next:", continued(following, 78 - wide - 2).replace("\n", "\n" + " " * (wide + 2))))
    told = answer or (answer_of(results) if results is not None else "")
    return "\n".join(["", *filter(None, [told]), *(f"{name:{wide}}  {what}" for name, what in lines)])


def answer_of(results: Results) -> str:
    """The arm that an experiment is about, beside what it must beat, and beside guessing."""
    arm, reference, rows = judged_arm(results)
    beside = [name for name in (reference, next((guess for guess in _GUESSES if mean_of(rows, guess, results.metric)
                                                 is not None), "")) if name]
    said = [(name, mean_of(rows, name, results.metric)) for name in (arm, *beside)]
    return f"test {results.metric.replace('_', ' ')}: " + "; ".join(f"{name} {figure_text(results.metric, value)}"
                                                  for name, value in said if value is not None)


def command(words: str, values: Mapping[str, str | Path] | None = None, **options: str | Path) -> str:
    """As it is typed: `make predict MODEL=runs/a`. values: of make's variables; options: of ARGS."""
    parts = [words, *(f"{name}={shlex.quote(str(value))}" for name, value in (values or {}).items())]
    if options:
        given = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in options.items())
        parts.append(f'ARGS="{given}"' if not set('"$`\\!') & set(given) else f"ARGS={shlex.quote(given)}")
    return " ".join(parts)
