"""Pretrain a GPT from scratch on your text, or on series as tokens: the next one, in packed blocks.

    make pretrain-gpt CONFIG=recipes/configs/gpt-5min.yaml
    make pretrain-gpt CONFIG=recipes/configs/gpt-series.yaml
    accelerate launch --multi_gpu --num_processes 2 recipes/pretrain_gpt.py --config …

Corpus → byte-level BPE tokenizer → token store → blocks → GPT2LMHeadModel (Radford et al. 2019); series → uniform bins
→ the same (Ansari et al. 2024). Run it again to continue an interrupted run; a finished one prints its result.
"""

from toolkit import cli, config
from toolkit.tasks.settings import PretrainGptConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(PretrainGptConfig, __doc__)

from toolkit.commands.pretrain_gpt import pretrain_gpt
from toolkit.report.ending import command, ending
from toolkit.training.impl.distributed import make_accelerator


def main(argv: list[str]) -> None:
    settings = config.parse(PretrainGptConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = pretrain_gpt(settings, accelerator)
    if settings.dry_run:
        return
    answer = (f"next token: {result['loss']:.3f} nats, {result['unigram_entropy']:.3f} by frequencies alone; "
              f"perplexity {result['perplexity']:.1f}")
    following = command("make sample-forecasts", run=settings.output_dir)
    if "bits_per_byte" in result:
        answer += f"; {result['bits_per_byte']:.3f} bits per byte"
        following = command("make chat", {"MODEL": settings.output_dir})
    accelerator.print(ending(settings.output_dir, following, answer))


if __name__ == "__main__":
    cli.run(main)
