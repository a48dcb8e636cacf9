"""Pretrain a BERT from scratch on your text: masked LM and next-sentence prediction (Devlin et al. 2018).

    make pretrain-bert CONFIG=recipes/configs/bert-5min.yaml
    accelerate launch --multi_gpu --num_processes 2 recipes/pretrain_bert.py --config …

Corpus → WordPiece tokenizer → token store → sentence pairs with masks → BertForPreTraining. Run it again to continue
an interrupted run; a finished one prints its result.
"""

from toolkit import cli, config
from toolkit.commands.pretrain_bert import pretrain_bert
from toolkit.tasks.settings import PretrainBertConfig
from toolkit.training.impl.distributed import make_accelerator


def main(argv: list[str]) -> None:
    settings = config.parse(PretrainBertConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = pretrain_bert(settings, accelerator)
    if settings.dry_run:
        return
    accelerator.print(f"masked LM {result['mlm_loss']:.3f} nats (unigram entropy {result['unigram_entropy']:.3f}), "
                      f"accuracy {result['mlm_accuracy']:.3f}")
    if "nsp_accuracy" in result:
        accelerator.print(f"next sentence: accuracy {result['nsp_accuracy']:.3f}")
    accelerator.print(f"model: {settings.output_dir}/model")


if __name__ == "__main__":
    cli.run(main)
