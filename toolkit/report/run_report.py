"""One page a run, out of the files that lie in its directory: `report.html`.

    write_report("runs/demo/bert")

Whatever the kind of run: pretraining, fine-tuning, forecasts, comparisons, word vectors, tokenizers, the demo.
"""

from collections.abc import Callable
from pathlib import Path

from toolkit.errors import UserError
from toolkit.report.page import Section, write_page
from toolkit.report.sections.comparison import comparison_page
from toolkit.report.sections.demonstration import demonstration_page
from toolkit.report.sections.evidence import Evidence
from toolkit.report.sections.forecasts import forecasts_page, sampled_forecasts_page
from toolkit.report.sections.from_card import card_sections
from toolkit.report.sections.learned_words import sorting_page, tokenizers_page, word_vectors_page
from toolkit.report.sections.pieces import attention
from toolkit.report.sections.pretraining import pretraining_page
from toolkit.report.sections.seq2seq import seq2seq_page
from toolkit.report.sections.series import series_page
from toolkit.report.sections.text import text_page
from toolkit.run.files import disk_errors

REPORT = "report.html"

Build = Callable[[Evidence], tuple[str, list[Section]]]
"""The answer in a sentence, and the sections."""

_BY_KEY: tuple[tuple[str, Build], ...] = (
    ("masking", pretraining_page), ("block_size", pretraining_page), ("horizons", forecasts_page),
    ("num_samples", sampled_forecasts_page), ("methods", word_vectors_page), ("second_sources", tokenizers_page),
    ("target_tokenizer", seq2seq_page), ("keras_seeds", comparison_page), ("archive", comparison_page),
    ("numbers", comparison_page), ("quick", comparison_page), ("arms", comparison_page), ("patch_length", series_page),
    ("models", text_page))
"""A key that, of those left, only this kind of configuration has → what its page is made of."""


def write_report(run_directory: str | Path, path: str | Path | None = None) -> Path:
    """Write the run's page; returns its path, by default `report.html` in the run's directory. UserError where there is
    no run, or its files cannot be read.
    """
    run = Evidence.of(run_directory)
    path = run.directory / REPORT if path is None else Path(path)
    with disk_errors(run.directory, "run"):
        write_run_page(run, path)
    return path


def write_model_report(run_directory: str | Path, model: str) -> Path:
    """`<model>-report.html` of classifiers of texts: of the models that were tuned only this one."""
    run = Evidence.of(run_directory)
    path = run.directory / f"{model}-report.html"
    with disk_errors(run.directory, "output_dir"):
        write_run_page(run, path, lambda found: text_page(found, [model]))
    return path


def write_run_page(run: Evidence, path: Path, build: Build | None = None) -> None:
    """The page at a path of its own; build: in place of what the run's kind asks for."""
    try:
        lead, sections = (build or builder(run))(run)
        *own, next_steps = sections
        write_page(path, run.name, [*own, *attention(run), *card_sections(run), next_steps], lead)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{run.directory}: no page can be made of its files ({type(error).__name__}: {reason}). Give "
                        f"the command that made the run again: what is finished is kept.") from error


def builder(run: Evidence) -> Build:
    """By the kind of run."""
    if not run.config:
        return demonstration_page if (run.directory / "summary.json").is_file() else comparison_page
    if run.config.keys() <= {"output_dir", "training", "seed", "impl"}:  # nano-gpt
        return sorting_page
    found = next((build for key, build in _BY_KEY if key in run.config), None)
    if found is None:
        raise UserError(f"{run.directory}: is a run of a kind that has no page.")
    return found
