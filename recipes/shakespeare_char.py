"""A GPT learns Shakespeare by character: nanoGPT's recipe for a CPU, with its text, split, model shape and block.

    make shakespeare-char                                                # nanoGPT's own budget, 1.54 M tokens
    make shakespeare-char CONFIG=recipes/configs/shakespeare-char-fast.yaml   # to nanoGPT's loss and no further

The first nine tenths of the text are for training, the rest for validation. What differs from nanoGPT is how it
learns: Muon for the hidden matrices, sinusoids as the positions' initial values, and how it is computed.
docs/results/speed.md tells how the two were compared.
"""

from dataclasses import dataclass

from toolkit import cli, config
from toolkit.tasks.settings import PretrainGptConfig


@dataclass
class ShakespeareCharConfig(PretrainGptConfig):
    text: str = "../shared/data/shakespeare/input.txt"
    """One text, 1.1 MB: github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt."""
    train_share: float = 0.9


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(ShakespeareCharConfig, __doc__)

from pathlib import Path

from pretrain_gpt import pretrain_gpt

from toolkit.errors import UserError
from toolkit.inference.samples import write_samples
from toolkit.report.ending import command, ending
from toolkit.report.run_report import write_report
from toolkit.run.files import write_atomic
from toolkit.training.impl.distributed import main_process_first, make_accelerator


def split(text_path: Path, train_share: float, directory: Path) -> list[str]:
    """The first part of the text and the rest as files of their own."""
    if not text_path.is_file():
        raise UserError(f"{text_path}: no such file. Give the text with --text; tiny Shakespeare is "
                        f"data/tinyshakespeare/input.txt of github.com/karpathy/char-rnn.")
    text = text_path.read_text(encoding="utf-8")
    cut = int(train_share * len(text))
    paths = [directory / "text/train.txt", directory / "text/validation.txt"]
    for path, part in zip(paths, (text[:cut], text[cut:]), strict=True):
        write_atomic(path, part)
    return [str(path) for path in paths]


def main(argv: list[str]) -> None:
    settings = config.parse(ShakespeareCharConfig, argv, __doc__)
    if not 0 < settings.train_share < 1:
        raise UserError(f"train_share is {settings.train_share}; it must lie between 0 and 1.")
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    with main_process_first(accelerator):
        parts = split(Path(settings.text), settings.train_share, Path(settings.data_dir))
    settings.corpus.sources, settings.corpus.validation_sources = parts[:1], parts[1:]
    result = pretrain_gpt(settings, accelerator)
    if accelerator.is_main_process:
        write_samples(settings.output_dir, settings.data_dir)
        write_report(settings.output_dir)
    accelerator.print(ending(
        settings.output_dir, command("make chat", {"MODEL": settings.output_dir}),
        f"validation loss {result['loss']:.3f} nats a character, {result['unigram_entropy']:.3f} by frequencies "
        f"alone;\nthe best within {result['tokens']:,} tokens, {result['seconds']:.1f} s of training, "
        f"{result['tokens_per_second']:,.0f} tokens/s"))


if __name__ == "__main__":
    cli.run(main)
