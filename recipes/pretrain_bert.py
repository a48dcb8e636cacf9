"""Pretrain a BERT from scratch on your text: masked LM and next-sentence prediction (Devlin et al. 2018).

    make pretrain-bert CONFIG=recipes/configs/bert-5min.yaml
    accelerate launch --multi_gpu --num_processes 2 recipes/pretrain_bert.py --config …

Corpus → WordPiece tokenizer → token store → sentence pairs with masks → BertForPreTraining. Run it again to continue
an interrupted run; a finished one prints its result.
"""

from toolkit import cli, config
from toolkit.tasks.settings import PretrainBertConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(PretrainBertConfig, __doc__)

from toolkit.commands.pretrain_bert import pretrain_bert
from toolkit.report.ending import command, ending
from toolkit.training.impl.distributed import make_accelerator


def main(argv: list[str]) -> None:
    settings = config.parse(PretrainBertConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = pretrain_bert(settings, accelerator)
    if settings.dry_run:
        return
    answer = (f"masked words: {result['mlm_loss']:.3f} nats, {result['unigram_entropy']:.3f} by frequencies alone; "
              f"{100 * result['mlm_accuracy']:.1f} % right")
    if "nsp_accuracy" in result:
        answer += f"\nnext sentence: {100 * result['nsp_accuracy']:.1f} % right, 50 % by guessing"
    model = f"{settings.output_dir}/model"
    accelerator.print(ending(settings.output_dir, command(
        "make finetune-text", models=f"{{bert: {model}}}", output_dir=f"{settings.output_dir}-text"), answer))


if __name__ == "__main__":
    cli.run(main)
