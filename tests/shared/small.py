"""Small things for tests: a made-up corpus, tiny models, and recipes run in processes of their own.

Run as a script by each process of a group (`tests/shared/small.py DIRECTORY`), it trains what `test_trainer.py`
compares.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hashlib
import json
import multiprocessing
import multiprocessing.forkserver
import os
import random
import runpy
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
import yaml
from safetensors.torch import load_file
from transformers import BertConfig, GPT2Config

from toolkit.data.batches import IGNORED
from toolkit.data.stores.bert_batches import MaskingConfig
from toolkit.data.stores.prepare import PreparedData, prepare
from toolkit.data.stores.store import TokenStore
from toolkit.data.text.corpus import CorpusConfig
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.run.directory import Run, read_metrics  # noqa: F401
from toolkit.run.files import read_json  # noqa: F401
from toolkit.tasks.causal_lm import GptPretraining
from toolkit.tasks.masked_lm import BertPretraining
from toolkit.training import trainer as loop
from toolkit.training.impl.distributed import make_accelerator

ROOT = Path(__file__).parents[2]
SPECS = {"wordpiece": "algorithm: wordpiece\nvocab_size: 260\nlowercase: true\n",
         "bytes": "algorithm: byte-level-bpe\nvocab_size: 300\n"}


def write_corpus(directory: Path, documents: int = 40) -> Path:
    """Documents of 2 to 25 made-up sentences, so that rows are full and not full."""
    rng = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(200)]
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        sentences = [" ".join(rng.choices(words, k=rng.randint(3, 9))).capitalize() + "."
                     for _ in range(rng.choice([2, 2, 3, 25]))]
        (directory / f"{number:02}.txt").write_text(" ".join(sentences), encoding="utf-8")
    return directory


def write_spec(directory: Path, kind: str) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{kind}.yaml"
    path.write_text(SPECS[kind], encoding="utf-8")
    return str(path)


def small_data(root: Path, kind: str) -> PreparedData:
    """Tokenizer and stores of the made-up corpus: `wordpiece` for BERT, `bytes` for GPT."""
    corpus = CorpusConfig(sources=[str(write_corpus(root / "corpus"))], validation_share=0.2, min_characters=20)
    return prepare(corpus, write_spec(root, kind), root / "data", end_documents=kind == "bytes", progress=False)


def bert_config(vocab_size: int, dropout: float = 0.0) -> BertConfig:
    return BertConfig(vocab_size=vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                      intermediate_size=64, max_position_embeddings=64, hidden_dropout_prob=dropout,
                      attention_probs_dropout_prob=dropout)


def gpt_config(vocab_size: int, dropout: float = 0.0) -> GPT2Config:
    return GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=2, n_positions=64, resid_pdrop=dropout,
                      embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=0, eos_token_id=0)


class UnevenGptPretraining(GptPretraining):
    """Rows of a GPT all predict `block_size` tokens; here row i leaves its first (11 i mod block_size) out."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batch = self.uneven

    def uneven(self, step: int, rows: range) -> dict[str, np.ndarray]:
        batch = self.batches.batch(step, rows)
        left_out = 11 * np.arange(rows.start, rows.stop) % self.block_size
        batch["labels"] = np.where(np.arange(self.block_size) < left_out[:, None], IGNORED, batch["labels"])
        return batch


def bert_task(data: PreparedData, dropout: float = 0.0, seed: int = 7) -> BertPretraining:
    torch.manual_seed(1)
    model = BertForPreTraining(bert_config(len(data.tokenizer), dropout))
    return BertPretraining(model, data, MaskingConfig(max_seq_length=40), batch_size=32, seed=seed, eval_rows=16)


def gpt_task(data: PreparedData, dropout: float = 0.0, seed: int = 7) -> GptPretraining:
    torch.manual_seed(1)
    return UnevenGptPretraining(GPT2LMHeadModel(gpt_config(len(data.tokenizer), dropout)), data, 24, 32, seed)


def sgd(model: torch.nn.Module, config: loop.TrainingConfig, *_) -> list[torch.optim.Optimizer]:
    """In place of `make_optimizers`: weights that are linear in the gradients, so that rounding stays rounding."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=config.learning_rate)
    optimizer.param_groups[0]["initial_lr"] = config.learning_rate
    return [optimizer]


def sgd_steps(clip: float) -> loop.TrainingConfig:
    """clip: 0 shows the size of gradients, 0.3 that they are clipped once and as a whole."""
    return loop.TrainingConfig(max_steps=3, batch_size=32, learning_rate=0.3, lr_scheduler_type="constant",
                               warmup_ratio=0.0, max_grad_norm=clip, save_steps=0, logging_steps=1)


PARTS: dict = {}
"""Arguments of `Trainer` that the tests of a module replace."""


def train(task, directory: Path, config: loop.TrainingConfig, **impl) -> dict[str, float]:
    """`loop.train` in fp32 on the process group at hand."""
    return loop.train(task, config, loop.ImplConfig(dtype="fp32", **impl), Run(directory), make_accelerator(), 7,
                      **PARTS)


TIMING = ("tokens_per_second", "mfu", "data_wait", "peak_memory_mb", "seconds")


def records(run: Path) -> list[dict]:
    """metrics.jsonl without the timing fields."""
    return [{key: value for key, value in record.items() if key not in TIMING}
            for record in read_metrics(run / "metrics.jsonl")]


def digest(path: Path) -> str:
    """SHA-256 of all weights. (With tied weights the header varies: its names come in random order.)"""
    total = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return total.hexdigest()


# Recipes in processes of their own. A fork server imports the libraries once (6 s); after that a process costs little.

@dataclass
class Finished:
    code: int
    out: str
    err: str


def start_server():
    """The context whose processes are forked from a server with the libraries imported; returns before they are."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    before = os.environ.get("PYTHONPATH")
    # The server of Python 3.11 looks nowhere else for what it shall import, and says nothing when it is not there.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(ROOT), *filter(None, [before])])
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


class Program:
    """A script in a forked process of its own."""

    def __init__(self, path: Path | str, arguments: list[str], directory: Path, env: dict[str, str] | None = None,
                 hook: tuple | None = None, cwd: Path | None = None):
        """hook: see `_at`. directory: for what it says."""
        directory.mkdir(parents=True, exist_ok=True)
        self.what, self.out, self.err = f"{path} {arguments}", directory / "out.txt", directory / "err.txt"
        self.process = start_server().Process(target=_child, args=(
            str(path), arguments, str(self.out), str(self.err), env or {}, hook, cwd))
        self.process.start()

    def ends(self, timeout: float = 120) -> Finished:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"{self.what} ran for {timeout} s:\n{self.err.read_text()}")
        return Finished(self.process.exitcode, self.out.read_text(), self.err.read_text())


def run_recipe(recipe: str, arguments: list[str], directory: Path, env: dict[str, str] | None = None,
               hook: tuple | None = None, timeout: float = 120, kill_after: float | None = None,
               cwd: Path | None = None) -> Finished:
    """Run recipes/<recipe>.py as a program. hook: (where, when, signal), sent to itself there: see `_at`.

    kill_after: seconds after which it is killed with SIGKILL, unless it has ended.
    """
    program = Program(ROOT / f"recipes/{recipe}.py", arguments, directory, env, hook, cwd)
    if kill_after is not None:
        program.process.join(kill_after)
        program.process.kill()
    return program.ends(timeout)


def _child(path: str, arguments: list[str], out: str, err: str, env: dict[str, str], hook: tuple | None,
           cwd: Path | None) -> None:
    if cwd is not None:
        os.chdir(cwd)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    for name in ("WORLD_SIZE", "TOOLKIT_NPROC", "RANK", "LOCAL_RANK"):
        os.environ.pop(name, None)
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
    if hook is not None:
        _at(*hook)
    sys.argv = [path, *arguments]
    code = 0
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as stop:
        code = 0 if stop.code is None else 1
        if isinstance(stop.code, int):
            code = stop.code
        elif code:
            print(stop.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter would
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def _at(where: str, at: int, act: int | Exception) -> None:
    """Send this process that signal, or raise that error, there.

    `batch`: at training step `at` (from 0); `micro`: in the middle of its accumulation. `evaluate`: in the middle of
    evaluation `at` (from 0). `checkpoint`: with that of step `at` half written; `renamed`: in place, but older ones not
    yet removed. `model`: with the best model half written.
    """
    from toolkit.data.pairs.batches import PairBatches
    from toolkit.data.stores.bert_batches import BertBatches
    from toolkit.data.stores.gpt_batches import GptBatches
    from toolkit.training import checkpoint

    def before(owner, name: str, reached) -> None:
        original = getattr(owner, name)

        def patched(*args, **kwargs):
            if reached(*args):
                if isinstance(act, Exception):
                    raise act
                os.kill(os.getpid(), act)
            return original(*args, **kwargs)

        setattr(owner, name, patched)

    if where == "batch":
        for owner in (BertBatches, GptBatches, PairBatches):
            before(owner, "batch", lambda self, step, rows: step == at)
    elif where in ("micro", "evaluate"):
        now = {"step": -1, "evaluation": -1, "computed": 0}

        def drawn(self, step: int, rows: range) -> None:
            if not torch.is_inference_mode_enabled():  # evaluations draw batches, too
                now.update(step=step, computed=0)

        def evaluating(self, *args) -> None:
            now.update(evaluation=now["evaluation"] + 1, computed=0)

        def computed(self, model, batch) -> bool:
            now["computed"] += 1
            there = now["step"] == at if where == "micro" else now["evaluation"] == at
            return there and model.training == (where == "micro") and now["computed"] == 2

        for owner in (BertBatches, GptBatches):
            before(owner, "batch", drawn)
        for owner in (BertPretraining, GptPretraining):
            before(owner, "evaluate", evaluating)
            before(owner, "losses", computed)
    elif where == "renamed":
        before(checkpoint, "_newest_first", lambda directory: (directory / f"step-{at:08d}").exists())
    elif where == "model":
        before(transformers.PreTrainedTokenizerBase, "save_pretrained", lambda self, to: ".model." in str(to))
    else:
        before(checkpoint, "write_json", lambda path, value: path.name == "state.json" and value["step"] == at)


def write_config(path: Path, values: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


class Stopped(Exception):
    pass


def _shared(root: Path) -> None:
    """On each of two processes: three steps of SGD for BERT and GPT; AdamW unbroken, and broken off and resumed."""
    data = {"bert": small_data(root, "wordpiece"), "gpt": small_data(root, "bytes")}  # made before the launch
    accelerator = make_accelerator()
    PARTS["make_optimizers"] = sgd
    facts = {"processes": accelerator.num_processes}
    for make in (bert_task, gpt_task):
        for clip in (0.0, 0.3):
            kind = make.__name__.removesuffix("_task")
            task, name = make(data[kind]), f"two-{kind}-{clip}"
            facts[name] = train(task, root / name, sgd_steps(clip), micro_batch_size=9)
            if accelerator.is_main_process:
                torch.save(task.model.state_dict(), root / f"{name}.pt")
    del PARTS["make_optimizers"]
    config = loop.TrainingConfig(max_steps=6, batch_size=8, logging_steps=4, save_steps=3)
    train(gpt_task(data["gpt"], 0.1), root / "two-unbroken", config)
    broken = gpt_task(data["gpt"], 0.1)
    draw = broken.batch

    def fail_at_4(step: int, rows: range) -> dict[str, np.ndarray]:
        if step == 4:
            raise Stopped
        return draw(step, rows)

    broken.batch = fail_at_4
    try:
        train(broken, root / "two-resumed", config)
    except Stopped:
        facts["stopped"] = True
    accelerator.wait_for_everyone()
    train(gpt_task(data["gpt"], 0.1), root / "two-resumed", config)
    if accelerator.is_main_process:
        (root / "two.json").write_text(json.dumps(facts), encoding="utf-8")
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    _shared(Path(sys.argv[1]))


def full_labels(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """transformers' labels (B, T): the original id where one is predicted, −100 elsewhere."""
    labels = torch.full_like(batch["input_ids"], IGNORED)
    for row, (positions, originals) in enumerate(zip(batch["masked_positions"], batch["masked_labels"], strict=True)):
        for position, original in zip(positions.tolist(), originals.tolist(), strict=True):
            if original != IGNORED:
                assert labels[row, position] == IGNORED, "a position predicted twice"
                labels[row, position] = original
    return labels


def store_of(ids) -> TokenStore:
    ids = np.asarray(ids, np.uint16)
    return TokenStore(Path("made-up"), ids, np.array([0, len(ids)]), np.array([0, 1]), {})

STEPS = 24


def assert_same_run(run: Path, unbroken: Path, steps: int = STEPS) -> None:
    last = f"checkpoints/step-{steps:08}/model.safetensors"
    for file in (last, "model/model.safetensors"):
        assert digest(run / file) == digest(unbroken / file), file
    assert records(run) == records(unbroken)
    one, other = ({key: value for key, value in read_json(directory / "result.json").items()
                   if key not in TIMING} for directory in (run, unbroken))
    assert one == other
