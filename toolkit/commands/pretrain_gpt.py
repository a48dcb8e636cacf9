"""A whole run of a GPT's pretraining, on text or on series as tokens, as `make pretrain-gpt`."""

from accelerate import Accelerator

from toolkit.analysis.probes import Probes
from toolkit.data.stores.bert_batches import unigram_entropy
from toolkit.data.stores.prepare import PreparedData
from toolkit.errors import UserError
from toolkit.inference.samples import write_samples
from toolkit.models.initialisation import initialise
from toolkit.models.presets import model_config, preset
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.publishing.card import LiveCard
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.tasks.causal_lm import GptPretraining, SeriesPretraining, pretraining_data
from toolkit.tasks.continued import start_of
from toolkit.tasks.settings import PretrainGptConfig
from toolkit.training.dry_run import dry_run
from toolkit.training.extension import extension
from toolkit.training.feed import seed_everything
from toolkit.training.impl.distributed import main_process_first, make_accelerator
from toolkit.training.trainer import train


def pretrain_gpt(settings: PretrainGptConfig, accelerator: Accelerator | None = None) -> dict:
    """Train and evaluate; returns what `result.json` holds."""
    accelerator = accelerator or make_accelerator(settings.impl.ddp_timeout, settings.impl)
    if preset(settings.model.preset).family != "gpt":
        raise UserError(f"model.preset is {settings.model.preset}, a BERT; give one of GPT's sizes, such as gpt-tiny.")
    settings, start = start_of(settings, "gpt2")
    positions = settings.model.max_position_embeddings or settings.block_size
    if not 1 <= settings.block_size <= positions:
        raise UserError(f"block_size is {settings.block_size}; it must lie between 1 and the model's {positions} "
                        f"positions (model.max_position_embeddings).")
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run,
              [LiveCard()]).open(settings, extension(settings.training, settings.output_dir))
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()

    # Data: the first process makes it, the others find it made.
    with main_process_first(accelerator):
        data = pretraining_data(settings, accelerator.is_main_process)
    vocab_size = len(data.tokenizer)

    # Model: a new one, or the one to go on from.
    seed_everything(settings.seed)
    if start:
        model = start.load(GPT2LMHeadModel, settings.model.dropout)
    else:
        model = new_model(settings, data, positions, accelerator.is_main_process)
    entropy = unigram_entropy(data.validation, vocab_size, data.train)
    run.write_manifest(data.files(), data=data.facts(), parameters=model.num_parameters())
    title = f"{start.name} with its tokenizer" if start else settings.model.preset
    accelerator.print(f"{title}: {model.num_parameters():,} parameters with a vocabulary of {vocab_size:,}\n"
                      f"{data.train.num_tokens:,} training tokens; unigram entropy {entropy:.2f} nats")

    # Train.
    objective = SeriesPretraining if settings.series.sources else GptPretraining
    task = objective(model, data, settings.block_size, settings.training.batch_size, settings.seed,
                     settings.attention_within_documents,
                     Probes(settings.probes, data.tokenizer) if settings.probes.sets else None)
    task.loss_shown.guessing = entropy
    if settings.dry_run:
        return dry_run(task, settings.training, settings.impl, run, accelerator, data.train.num_tokens)
    metrics = train(task, settings.training, settings.impl, run, accelerator, settings.seed, "GPT")
    result = run.finish({**metrics, "unigram_entropy": entropy})
    if accelerator.is_main_process:
        if not settings.series.sources:
            write_samples(run.directory, settings.data_dir, settings.corpus.language)
            run.tell(finished=True)  # whose card shows them
        write_report(run.directory)
    return result


def new_model(settings: PretrainGptConfig, data: PreparedData, positions: int, is_main: bool) -> GPT2LMHeadModel:
    """transformers' class, with initial values from which minutes are enough."""
    dropout, end_id = settings.model.dropout, data.tokenizer.eos_token_id
    model = GPT2LMHeadModel(model_config(
        settings.model.preset, vocab_size=len(data.tokenizer), max_position_embeddings=positions,
        initializer_range=settings.model.initializer_range, resid_pdrop=dropout, embd_pdrop=dropout,
        attn_pdrop=dropout, bos_token_id=end_id, eos_token_id=end_id))
    if is_main:
        initialise(model, settings.model, data.train, data.tokenizer)  # the others get rank 0's weights
    return model
