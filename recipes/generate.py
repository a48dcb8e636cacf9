"""Let a GPT continue a prompt, or every line of a file, through transformers' own `generate`.

    python recipes/generate.py runs/demo/gpt --prompt "Returns the"                       # sampled, shown as it comes
    python recipes/generate.py runs/demo/gpt --prompt "Returns the" --temperature 0       # greedy
    python recipes/generate.py runs/demo/gpt --prompt "Returns the" --num_beams 4 --num_return_sequences 2
    python recipes/generate.py runs/demo/gpt --prompts prompts.txt --output answers.jsonl

MODEL is a directory, a run's directory or a hub id.
"""

import json
import sys
from dataclasses import dataclass, field

from toolkit import cli, config
from toolkit.errors import UserError
from toolkit.run.files import disk_errors, write_atomic
from toolkit.shown import tell


@dataclass
class GenerateConfig:
    model: str
    prompt: str = config.text()
    prompts: str = ""
    """A file instead: a prompt a line (.txt), or a text column (.csv .tsv .jsonl .parquet)."""
    text_column: str = "text"
    max_new_tokens: int = 60
    temperature: float = 0.8
    """Of sampling; 0: greedy, always the likeliest token."""
    top_k: int = 0
    """Sample from so many of the likeliest tokens; 0: from all."""
    top_p: float = 0.95
    """Sample from the fewest tokens that together have this probability (Holtzman et al. 2020); 1: from all."""
    num_beams: int = 1
    """More than 1: beam search, which samples nothing, so that temperature, top_k, top_p and seed play no part."""
    length_penalty: float = 1.0
    """Beams compete by log probability / length ** length_penalty: above 0 favours long texts, below 0 short ones."""
    num_return_sequences: int = 1
    """Continuations of each prompt."""
    repetition_penalty: float = 1.0
    """More than 1 makes tokens less likely that were written or are in the prompt (Keskar et al. 2019); 1: off."""
    no_repeat_ngram_size: int = 0
    """So many tokens in a row come only once, the prompt counted in; 0: as often as they come."""
    stop_strings: list[str] = field(default_factory=list)
    """End a text with the first of these: --stop_strings "." or, as YAML, --stop_strings '["\\n", "The end"]'."""
    seed: int = 0
    batch_size: int = 8
    """Prompts that are continued at once."""
    output: str = ""
    """A .jsonl file: prompt, text, new_tokens and why it stopped, a line a continuation. Empty: to the screen."""


def main(argv: list[str]) -> None:
    settings = config.parse(GenerateConfig, argv, __doc__, ["model"])
    if bool(settings.prompt) == bool(settings.prompts):
        raise UserError("Give either --prompt TEXT or --prompts FILE.")
    if settings.output and not settings.output.endswith(".jsonl"):
        raise UserError(f"output is {settings.output}; its name must end in .jsonl.")
    from toolkit.data.tables.sources import Reading  # only now: --help waits for no library
    from toolkit.data.text.labelled import text_rows
    from toolkit.inference.generation import generate, open_model

    rows = [] if settings.prompt else list(text_rows(settings.prompts, settings.text_column, option="prompts",
                                                     reading=Reading(note=tell)))
    prompts = [row.text for row in rows] or [settings.prompt]
    streams = len(prompts) == settings.num_beams == settings.num_return_sequences == 1 and not settings.output
    opened = open_model(settings.model, "causal")
    found = generate(opened, prompts, max_new_tokens=settings.max_new_tokens, temperature=settings.temperature,
                     top_k=settings.top_k, top_p=settings.top_p, num_beams=settings.num_beams,
                     length_penalty=settings.length_penalty, num_return_sequences=settings.num_return_sequences,
                     repetition_penalty=settings.repetition_penalty,
                     no_repeat_ngram_size=settings.no_repeat_ngram_size, stop_strings=settings.stop_strings,
                     seed=settings.seed, batch_size=settings.batch_size, stream=streams,
                     places=[row.place for row in rows])
    if settings.output:
        lines = [json.dumps({"prompt": each.prompt, "text": each.text, "new_tokens": each.new_tokens,
                             "stopped": each.stopped}, ensure_ascii=False) for each in found]
        with disk_errors(settings.output, "output"):
            write_atomic(settings.output, "\n".join(lines) + "\n")
        print(f"{len(found):,} continuations: {settings.output}")
    elif not streams:
        print("\n\n".join(f"— {number}\n{each}" for number, each in enumerate(found, 1)))
    if cut := sum(each.stopped == "positions" for each in found):
        print(f"{cut} of {len(found)} ended before max_new_tokens: the model has {opened.positions} positions, for "
              f"prompt and continuation together.", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
