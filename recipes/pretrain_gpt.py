"""Pretrain a GPT from scratch on your text, or on series as tokens: the next one, in packed blocks.

    make pretrain-gpt CONFIG=recipes/configs/gpt-5min.yaml
    make pretrain-gpt CONFIG=recipes/configs/gpt-series.yaml
    accelerate launch --multi_gpu --num_processes 2 recipes/pretrain_gpt.py --config …

Corpus → byte-level BPE tokenizer → token store → blocks → GPT2LMHeadModel (Radford et al. 2019); series → uniform bins
→ the same (Ansari et al. 2024). Run it again to continue an interrupted run; a finished one prints its result.
"""

from dataclasses import dataclass, field

from toolkit import cli, config
from toolkit.analysis.probes import ProbeConfig, Probes
from toolkit.data.stores.pairs import unigram_entropy
from toolkit.data.stores.prepare import PreparedData, prepare
from toolkit.data.stores.series import SeriesCorpusConfig, prepare_series
from toolkit.data.text.corpus import CorpusConfig
from toolkit.errors import UserError
from toolkit.models.initialisation import InitialValues, initialise
from toolkit.models.presets import model_config, preset
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.publishing.card import CardConfig, LiveCard
from toolkit.run.directory import Run
from toolkit.tasks.causal_lm import GptPretraining, SeriesPretraining
from toolkit.tasks.pretraining import PretrainingConfig, with_defaults
from toolkit.training.dry_run import dry_run
from toolkit.training.feed import seed_everything
from toolkit.training.impl.distributed import main_process_first, make_accelerator
from toolkit.training.impl.precision import ImplConfig
from toolkit.training.trainer import train


@dataclass
class ModelSection(InitialValues):
    preset: str = "gpt-tiny"
    """A published size (gpt2, gpt2-medium, …) or one of ours of BERT's shapes: gpt-tiny, -mini, -small."""
    max_position_embeddings: int | None = None
    """Default: as many as a row has tokens; more would stay untrained."""
    dropout: float = 0.0
    """Minutes of training never see a text often enough to overfit; raise it for many epochs."""
    initializer_range: float = 0.02
    """Standard deviation of the other initial weights; 0.02 is GPT-2's, 0.05 suits a width of 128 in short runs."""


@dataclass
class PretrainGptConfig:
    output_dir: str
    """The run directory."""
    data_dir: str
    """Where corpus, tokenizer and token store are made once; runs may share it."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    series: SeriesCorpusConfig = field(default_factory=SeriesCorpusConfig)
    """Given series.sources, series are what is learned, and corpus is not read."""
    tokenizer: str = "tokenizers/byte-level-bpe-4k.yaml"
    """A spec to train on the train split, or a trained tokenizer's directory or hub id; for series
    tokenizers/series-bins.yaml, or one like it."""
    model: ModelSection = field(default_factory=ModelSection)
    block_size: int = 128
    """Tokens a row sees at once."""
    attention_within_documents: bool = False
    """Keep attention, and the count of positions, inside each of the documents that share a row. Without it a row's
    later documents see the earlier ones, as in GPT-2."""
    training: PretrainingConfig = field(default_factory=PretrainingConfig)
    probes: ProbeConfig = field(default_factory=ProbeConfig)
    """Labelled sets on which every evaluation measures what the frozen states are worth."""
    card: CardConfig = field(default_factory=CardConfig)
    seed: int = 0
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = config.free(False)
    """Check every input, prepare the data, tell what would be trained, how long and in how much memory, and end."""


def load_data(settings: PretrainGptConfig, progress: bool) -> PreparedData:
    """Tokens of the text, or of the series, that the configuration names."""
    if settings.series.sources:
        if settings.probes.sets:
            raise UserError("probes.sets names labelled texts, but series.sources is given: a model of series reads no "
                            "text. Leave one of them out.")
        data = prepare_series(settings.series, settings.tokenizer, settings.data_dir, progress)
        document = data.tokenizer.context_length + data.tokenizer.horizon + 1
        if settings.block_size < document:
            raise UserError(f"block_size is {settings.block_size}; a document of {settings.tokenizer} is {document} "
                            f"tokens, and a row must hold at least one.")
        return data
    return prepare(settings.corpus, settings.tokenizer, settings.data_dir, end_documents=True,
                   num_proc=settings.impl.preprocessing_num_workers, progress=progress)


def pretrain_gpt(settings: PretrainGptConfig, accelerator) -> dict:
    """Train and evaluate; returns what `result.json` holds."""
    if preset(settings.model.preset).family != "gpt":
        raise UserError(f"model.preset is {settings.model.preset}, a BERT; give one of GPT's sizes, such as gpt-tiny.")
    positions = settings.model.max_position_embeddings or settings.block_size
    if not 1 <= settings.block_size <= positions:
        raise UserError(f"block_size is {settings.block_size}; it must lie between 1 and the model's {positions} "
                        f"positions (model.max_position_embeddings).")
    settings.training = with_defaults(settings.training, settings.model.preset)
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run,
              [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()

    # Data: the first process makes it, the others find it made.
    with main_process_first(accelerator):
        data = load_data(settings, accelerator.is_main_process)
    vocab_size, end_id = len(data.tokenizer), data.tokenizer.eos_token_id

    # Model: transformers' class, with initial values from which minutes are enough.
    seed_everything(settings.seed)
    dropout = settings.model.dropout
    model = GPT2LMHeadModel(model_config(
        settings.model.preset, vocab_size=vocab_size, max_position_embeddings=positions,
        initializer_range=settings.model.initializer_range, resid_pdrop=dropout, embd_pdrop=dropout,
        attn_pdrop=dropout, bos_token_id=end_id, eos_token_id=end_id))
    if accelerator.is_main_process:
        initialise(model, settings.model, data.train, data.tokenizer)  # the others get rank 0's weights
    entropy = unigram_entropy(data.validation, vocab_size, data.train)
    run.write_manifest(data.files(), data=data.facts(), parameters=model.num_parameters())
    accelerator.print(f"{settings.model.preset}: {model.num_parameters():,} parameters with a vocabulary of "
                      f"{vocab_size:,}; {data.train.num_tokens:,} training tokens; unigram entropy {entropy:.2f} nats")

    # Train.
    objective = SeriesPretraining if settings.series.sources else GptPretraining
    task = objective(model, data, settings.block_size, settings.training.batch_size, settings.seed,
                     settings.attention_within_documents,
                     Probes(settings.probes, data.tokenizer) if settings.probes.sets else None)
    if settings.dry_run:
        return dry_run(task, settings.training, settings.impl, run, accelerator, data.train.num_tokens)
    metrics = train(task, settings.training, settings.impl, run, accelerator, settings.seed, "GPT")
    return run.finish({**metrics, "unigram_entropy": entropy})


def main(argv: list[str]) -> None:
    settings = config.parse(PretrainGptConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = pretrain_gpt(settings, accelerator)
    if settings.dry_run:
        return
    accelerator.print(f"loss {result['loss']:.3f} nats a token, perplexity {result['perplexity']:.1f}"
                      + (f", {result['bits_per_byte']:.3f} bits per byte" if "bits_per_byte" in result else
                         f"; unigram entropy {result['unigram_entropy']:.3f} nats"))
    accelerator.print(f"model: {settings.output_dir}/model")


if __name__ == "__main__":
    cli.run(main)
