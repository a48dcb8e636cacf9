"""A whole run of BERT's pretraining: corpus → tokenizer → store → model → run directory, as `make pretrain-bert`."""

import torch
from accelerate import Accelerator

from toolkit.analysis.probes import Probes
from toolkit.data.stores.bert_batches import unigram_entropy
from toolkit.data.stores.prepare import PreparedData, prepare
from toolkit.errors import UserError
from toolkit.inference.samples import write_samples
from toolkit.models.initialisation import initialise
from toolkit.models.presets import model_config, preset
from toolkit.models.text.bert import BertForPreTraining
from toolkit.publishing.card import LiveCard
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.tasks.continued import start_of
from toolkit.tasks.masked_lm import BertPretraining, drawn_in_pairs_alone
from toolkit.tasks.settings import PretrainBertConfig
from toolkit.training.dry_run import dry_run
from toolkit.training.extension import extension
from toolkit.training.feed import seed_everything
from toolkit.training.impl.distributed import main_process_first, make_accelerator
from toolkit.training.trainer import train


def pretrain_bert(settings: PretrainBertConfig, accelerator: Accelerator | None = None) -> dict:
    """Train and evaluate; returns what `result.json` holds."""
    accelerator = accelerator or make_accelerator(settings.impl.ddp_timeout, settings.impl)
    if preset(settings.model.preset).family != "bert":
        raise UserError(f"model.preset is {settings.model.preset}, a GPT; give one of BERT's sizes, such as bert-tiny.")
    settings, start = start_of(settings, "bert")
    positions = settings.model.max_position_embeddings or settings.masking.max_seq_length
    if settings.masking.max_seq_length > positions:
        raise UserError(f"masking.max_seq_length is {settings.masking.max_seq_length}, but the model has {positions} "
                        f"positions. Lower the one or raise model.max_position_embeddings.")
    if settings.eval_rows < 1:
        raise UserError(f"eval_rows is {settings.eval_rows}; it must be at least 1.")
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run,
              [LiveCard()]).open(settings, extension(settings.training, settings.output_dir))
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()

    # Data: the first process makes it, the others find it made.
    with main_process_first(accelerator):
        data = prepare(settings.corpus, settings.tokenizer, settings.data_dir, end_documents=False,
                       num_proc=settings.impl.preprocessing_num_workers, progress=accelerator.is_main_process)
    vocab_size = len(data.tokenizer)

    # Model: a new one, or the one to go on from.
    seed_everything(settings.seed)
    if start:
        heads = () if settings.masking.next_sentence_prediction else ("bert.pooler.", "cls.seq_relationship.")
        model = start.load(BertForPreTraining, settings.model.dropout, may_lack=heads)
    else:
        model = new_model(settings, data, positions, accelerator.is_main_process)
    if not settings.masking.next_sentence_prediction:
        for module in (model.bert.pooler, model.cls.seq_relationship):
            module.requires_grad_(False)
    entropy = unigram_entropy(data.validation, vocab_size, data.train)
    facts, pairs_alone = data.facts(), False
    if not settings.masking.next_sentence_prediction and not (pairs_alone := drawn_in_pairs_alone(run)):
        facts["single_sentences"] = "drawn"
    run.write_manifest(data.files(), data=facts, parameters=model.num_parameters())
    title = f"{start.name} with its tokenizer" if start else settings.model.preset
    accelerator.print(f"{title}: {model.num_parameters():,} parameters with a vocabulary of {vocab_size:,}\n"
                      f"{data.train.num_tokens:,} training tokens; unigram entropy {entropy:.2f} nats")

    # Train.
    task = BertPretraining(model, data, settings.masking, settings.training.batch_size, settings.seed,
                           settings.eval_rows, Probes(settings.probes, data.tokenizer), pairs_alone)
    if left_out := task.batches.left_out():
        accelerator.print(f"note: {left_out}.")
    task.loss_shown.guessing = entropy
    if settings.dry_run:
        return dry_run(task, settings.training, settings.impl, run, accelerator, data.train.num_tokens)
    metrics = train(task, settings.training, settings.impl, run, accelerator, settings.seed, "BERT")
    result = run.finish({**metrics, "unigram_entropy": entropy})
    if accelerator.is_main_process:
        write_samples(run.directory, settings.data_dir, settings.corpus.language)
        run.tell(finished=True)  # whose card shows them
        write_report(run.directory)
    return result


def new_model(settings: PretrainBertConfig, data: PreparedData, positions: int, is_main: bool) -> BertForPreTraining:
    """transformers' class, with initial values from which minutes are enough."""
    model = BertForPreTraining(model_config(
        settings.model.preset, vocab_size=len(data.tokenizer), max_position_embeddings=positions,
        hidden_dropout_prob=settings.model.dropout, attention_probs_dropout_prob=settings.model.dropout,
        pad_token_id=data.tokenizer.pad_token_id))
    torch.nn.init.normal_(model.bert.embeddings.token_type_embeddings.weight, std=settings.model.segment_deviation)
    if is_main:
        initialise(model, settings.model, data.train, data.tokenizer)  # the others get rank 0's weights
    return model
