"""Does a change compute the same? Every loss, metric and weight of two trees, on one machine, to the last bit.

    make test-same BASE=<commit>                                 this tree against an earlier commit, in turn
    python tests/same_results.py --tree . --write after.json     one tree's figures, as a file
    python tests/same_results.py --tree . --against before.json  the same, and compared with such a file
    python tests/same_results.py --compare before.json after.json
    python tests/same_results.py --jobs nano-gpt-1 resumed       some jobs alone, with those that they need

The jobs (`JOBS`) use what is public and stays: recipes by path, options, configs, files on disk. Nothing of the toolkit
is imported here, so that this file runs on trees of any layout. Each job is a process of its own, with fixed seeds and
a stated number of threads: the demo's stages at a tenth of their steps, nano GPT, fine-tunings of text and series,
forecasts, comparisons, a run that is stopped, killed and resumed, two processes, bad steps that are skipped.

Of each job everything is noted that it leaves: metrics.jsonl line by line, every JSON file value by value, SHA-256 of
weights, tokenizers, stores and predictions. Left out is what differs from run to run (`VARYING`): time, speed, memory,
energy, versions, commits. Differences are told as job, file and key, with both values. The exit code is 1 where there
are any. A tree takes about ten minutes of CPU time, most of it with one thread. Figures hold for one machine: another
processor, or another version of torch, rounds differently.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parents[1]
BASE = "c7ce5e2"  # the last commit before the walls of the toolkit were moved
VARYING = {"seconds", "tokens_per_second", "mfu", "data_wait", "peak_memory_mb", "energy_kwh", "emissions_kg", "commit",
           "started", "command", "machine", "versions", "python", "environment", "transformers_version"}
OF_A_MANIFEST = ("data", "examples", "parameters")
HASHED = {".bin", ".npz", ".parquet", ".csv", ".jsonl"}
LONGEST = 30  # a longer list is noted as a hash
TIMEOUT = 1200


# ---- jobs


@dataclass(frozen=True)
class Job:
    """Commands, one after the other. `{out}` stands for the folder that all jobs of a tree share, `{own}` for the job's
    own in there. `stops`: signals that the first command gets at a step of its metrics.jsonl; it is then given again.
    """

    commands: tuple[str, ...]
    threads: int = 1
    processes: int = 1
    needs: tuple[str, ...] = ()
    stops: tuple[tuple[int, int], ...] = ()


def job(*commands: str, **options) -> Job:
    return Job(tuple(" ".join(command.split()) for command in commands), **options)


FEW = "--training.max_steps 8 --training.batch_size 8 --training.logging_steps 4 --training.eval_steps 4"
DEMO = "--training.max_minutes null --training.emissions false"
MODELS = "{{bert: {out}/demo-bert/model, gpt: {out}/demo-gpt/model}}"
LABELLED = "--data.train {out}/inputs/train.tsv --data.test {out}/inputs/test.tsv --data.max_length 32"
SMALL = "--data_dir {out}/small --corpus.sources '[{out}/inputs/corpus]' --corpus.min_characters 20"
GPT = f"""recipes/pretrain_gpt.py --config recipes/configs/demo/gpt.yaml {SMALL} --output_dir {{own}}
         --tokenizer {{out}}/inputs/bytes.yaml
         --block_size 32 {DEMO} --training.max_steps 60
         --training.batch_size 16 --training.logging_steps 3 --training.eval_steps 30 --training.save_steps 25
         --model.dropout 0.1 --model.preset gpt-tiny"""
NANO = "recipes/nano_gpt.py --output_dir {own} --training.max_steps 150 --training.eval_steps 50"
SPIKES = """--training.loss_spike 0.1 --training.learning_rate 0.1 --training.lr_scheduler_type constant
            --training.batch_size 8 --training.max_steps 120 --training.logging_steps 10 --training.save_steps 20"""

JOBS = {
    # The demo: its recipes with its configs.
    "demo-bert": job(f"""recipes/pretrain_bert.py --config recipes/configs/demo/bert.yaml --data_dir {{out}}/data
        --output_dir {{own}} {DEMO} --training.max_steps 150 --training.eval_steps 50 --training.save_steps 50
        --eval_rows 256""", threads=2),
    "demo-gpt": job(f"""recipes/pretrain_gpt.py --config recipes/configs/demo/gpt.yaml --data_dir {{out}}/data
        --output_dir {{own}} {DEMO} --training.max_steps 70 --training.eval_steps 35 --training.save_steps 35""",
                    threads=2, needs=("demo-bert",)),
    "demo-text": job(f"""recipes/finetune_text.py --config recipes/configs/demo/text.yaml --output_dir {{own}}
        --models '{MODELS}' --data.corpus_dir {{out}}/data --training.max_steps 10 --seeds 1""",
                     threads=2, needs=("demo-bert", "demo-gpt")),
    "demo-series": job(f"""recipes/finetune_series.py --config recipes/configs/demo/series.yaml --output_dir {{own}}
        --models '{MODELS}' --training.max_steps 10 --seeds 2""", threads=2, needs=("demo-bert", "demo-gpt")),
    # Pretraining.
    "nano-gpt-1": job(NANO),
    "nano-gpt-2": job(NANO, threads=2),
    "bert-fp32": job(f"""recipes/pretrain_bert.py --config recipes/configs/demo/bert.yaml {SMALL}
        --tokenizer {{out}}/inputs/wordpiece.yaml
        --output_dir {{own}} {DEMO} --training.max_steps 24
        --training.optimizer adamw --training.learning_rate 1e-3 --training.ema_decay 0.9 --training.batch_size 16
        --training.logging_steps 4 --training.eval_steps 12 --eval_rows 64 --masking.max_seq_length 64
        --impl.dtype fp32 --impl.micro_batch_size 6 --model.dropout 0.1"""),
    "gpt-series": job("""recipes/pretrain_gpt.py --config recipes/configs/gpt-series.yaml --output_dir {own}/run
        --data_dir {own}/data --training.max_tokens null --training.max_steps 12 --training.batch_size 8
        --training.logging_steps 4 --series.sources '["generator:mackey-glass:40", "generator:noisy-sines:40"]'""",
                      "recipes/sample_forecasts.py --run {own}/run --output_dir {own}/samples --windows 4"
                      " --num_samples 4"),
    # Broken off: by a signal, after which a checkpoint is saved, and by a kill, after which there is an older one.
    "unbroken": job(GPT),
    "resumed": job(GPT, stops=((12, signal.SIGTERM), (36, signal.SIGKILL))),
    "two-processes": job(GPT, processes=2),
    "two-resumed": job(GPT, processes=2, stops=((18, signal.SIGTERM),)),
    "bad-steps-skip": job(f"{NANO} {SPIKES} --training.on_bad_step skip"),
    "bad-steps-back": job(f"{NANO} {SPIKES} --training.on_bad_step back"),
    # Fine-tuning.
    "text-multi-label": job(f"""recipes/finetune_text.py --models '{MODELS}' {LABELLED} --output_dir {{own}} {FEW}
        --data.task multi-label --data.label_column tags --data.label_separator '|' --seeds 1""",
                            needs=("demo-bert", "demo-gpt")),
    "text-lora": job(f"""recipes/finetune_text.py --models '{{{{bert: {{out}}/demo-bert/model}}}}' {LABELLED} {FEW}
        --output_dir {{own}} --training.tuning lora --pooling cls --threshold.aim f-beta --seeds 1""",
                     "recipes/predict.py {own}/bert-pretrained/seed-0/model {out}/inputs/test.tsv"
                     " --output {own}/answers.csv", needs=("demo-bert",)),
    "text-regression": job(f"""recipes/finetune_text.py --models '{{{{gpt: {{out}}/demo-gpt/model}}}}' {LABELLED} {FEW}
        --output_dir {{own}} --data.task regression --data.label_column number --pooling mean --seeds 1
        --training.max_grad_norm 0""", needs=("demo-gpt",)),
    # Forecasts and comparisons; both pretrain by hidden patches.
    "forecast": job("""recipes/forecast.py --output_dir {own} --data.generated_rows 1200 --data.season 50
        --context_length 96 --horizons '[12, 24]' --starts '[random, masked-patches]' --seeds 2
        --models '{{small: {{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32}}}}'
        --training.max_steps 12 --training.eval_steps 6 --pretraining.max_steps 12 --training.logging_steps 4"""),
    "compare-series": job("""recipes/compare_series.py --output_dir {own} --sets '[cylinder-bell-funnel]' --seeds 2
        --text_model {out}/demo-bert/model --training.max_steps 6 --training.batch_size 8 --pretraining.max_steps 6
        --arms '[random, random-frozen, text, masked-patches, no-attention, bigru-additive, mlp, logistic, majority]'
        """, needs=("demo-bert",)),
    "compare-text": job(f"""recipes/compare_text.py --name words --models '{MODELS}' {LABELLED} --output_dir {{own}}
        --arms '[random, frozen, tuned]' --labels '[12, all]' --seeds 2 {FEW}""", needs=("demo-bert", "demo-gpt")),
    "transfer": job(f"""recipes/transfer.py --models '{{{{bert: {{out}}/demo-bert/model}}}}' --output_dir {{own}} {FEW}
        --sets '{{{{words: {{{{train: {{out}}/inputs/train.tsv, test: {{out}}/inputs/test.tsv, max_length: 32}}}}}}}}'
        --labels '[12, all]' --seeds 2""", needs=("demo-bert",)),
    "fibonacci": job("""recipes/fibonacci.py --output_dir {own} --training.max_steps 20 --training.eval_steps 10
        --seeds 2"""),
    "forda-lab": job("""recipes/forda_lab.py --output_dir {own} --seeds 2 --keras_seeds 0 --training.max_steps 6
        --training.batch_size 8 --data.train_per_class 8 --data.test_per_class 16"""),
    "sweep": job("""recipes/sweep.py --output_dir {own} --pretraining {out}/inputs/pretraining.yaml --seeds 2
        --settings '[{{training.optimizer: adamw}}, {{training.optimizer: muon}}]'"""),
}


def write_inputs(directory: Path) -> None:
    """Documents; labelled texts with a class, tags and a number each; the config of the sweep's runs."""
    (directory / "corpus").mkdir(parents=True)
    words = "river garden window letter doctor morning village journey captain mountain answer street".split()
    draw = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    vocabulary = words + ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(400)]
    for number in range(150):
        sentences = [" ".join(draw.choices(vocabulary, k=draw.randint(3, 9))).capitalize() + "."
                     for _ in range(draw.choice([2, 3, 25, 60]))]
        (directory / f"corpus/{number:03}.txt").write_text(" ".join(sentences), encoding="utf-8")
    (directory / "wordpiece.yaml").write_text("algorithm: wordpiece\nvocab_size: 500\nlowercase: true\n")
    (directory / "bytes.yaml").write_text("algorithm: byte-level-bpe\nvocab_size: 400\n")
    for part, rows in (("train", 60), ("test", 31)):
        draw = random.Random(part)
        lines = ["text\tlabel\ttags\tnumber"]
        for row in range(rows):
            text = draw.choices(words, k=draw.randint(4, 9)) + [("winter", "summer")[row % 2]]
            tags = "|".join(tag for tag in ("river", "garden", "winter") if tag in text)
            lines.append(f"{' '.join(text)}\t{('cold', 'warm')[row % 2]}\t{tags}\t{len(text)}")
        (directory / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (directory / "pretraining.yaml").write_text(
        f"output_dir: {directory.parent}/sweep\ndata_dir: {directory.parent}/small\n"
        f"corpus: {{sources: [{directory}/corpus], validation_share: 0.08, min_characters: 20}}\n"
        f"tokenizer: {directory}/bytes.yaml\n"
        "model: {preset: gpt-tiny}\nblock_size: 32\n"
        "training: {max_steps: 8, batch_size: 8, logging_steps: 4}\n", encoding="utf-8")


def with_needs(names: list[str]) -> list[str]:
    """The jobs and those whose results they read, in the order of JOBS."""
    wanted: set[str] = set()

    def want(name: str) -> None:
        wanted.add(name)
        for other in JOBS[name].needs:
            want(other)

    for name in names:
        want(name)
    return [name for name in JOBS if name in wanted]


# ---- running them


def command_of(line: str, work: Job, places: dict[str, str]) -> list[str]:
    words = [word.format(**places) for word in shlex.split(line)]
    if work.processes == 1:
        return [sys.executable, *words]
    return [str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_machines", "1",
            "--num_processes", str(work.processes), "--main_process_port", "0", "--mixed_precision", "no",
            "--dynamo_backend", "no", *words]


def environment(tree: Path, work: Job) -> dict[str, str]:
    """The caller's, without what a launcher or a user's configuration of accelerate would add; the tree comes first."""
    clean = {key: value for key, value in os.environ.items()
             if not key.startswith(("ACCELERATE_", "TORCHELASTIC_", "PET_", "TOOLKIT_"))
             and key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    clean |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(work.threads), "HF_HUB_OFFLINE": "1",
              "TOKENIZERS_PARALLELISM": "false", "ACCELERATE_USE_CPU": "true", "GOMP_SPINCOUNT": "10000"}
    if work.processes > 1:  # as the Makefile has it
        clean |= {"TOOLKIT_NPROC": str(work.processes), "PET_SHUTDOWN_TIMEOUT": "110",
                  "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"}
    return clean


def run_job(name: str, tree: Path, out: Path) -> None:
    """Run a job to its end; SystemExit with what it said where it fails, or ends before it could be stopped."""
    work, own = JOBS[name], out / name
    log = out / f"{name}.log"
    for number, line in enumerate(work.commands):
        command = command_of(line, work, {"out": str(out), "own": str(own)})
        for step, sent in (*(work.stops if number == 0 else ()), (None, None)):
            with open(log, "ab") as said:
                process = subprocess.Popen(command, cwd=tree, env=environment(tree, work), stdout=said, stderr=said,
                                           start_new_session=True)
            try:
                if sent is not None:
                    stop(process, own / "metrics.jsonl", step, sent)
                code = process.wait(TIMEOUT)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
            if (code == 0) != (sent is None):
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                raise SystemExit(f"{name} on {tree}: ended with {code}"
                                 + (f", before it could be stopped at step {step}" if code == 0 else "")
                                 + f"\n{' '.join(command)}\n{tail}")


def stop(process: subprocess.Popen, metrics: Path, step: int, sent: int) -> None:
    """Send the signal as soon as that step is logged."""
    while process.poll() is None:
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
        if any(json.loads(line)["step"] >= step for line in lines if line.endswith("}")):
            process.send_signal(sent)
            return
        time.sleep(0.005)


# ---- what they leave


def flat(value, key: str = "") -> Iterator[tuple[str, object]]:
    """Dotted key and value, without what varies; a long list as a hash of it."""
    if isinstance(value, dict):
        for name, entry in value.items():
            if name not in VARYING and not str(name).startswith("seconds"):  # seconds_values, seconds_ci95
                yield from flat(entry, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and len(value) <= LONGEST:
        yield f"{key}.length", len(value)
        for number, entry in enumerate(value):
            yield from flat(entry, f"{key}.{number}")
    elif isinstance(value, list):
        yield key, f"{len(value)} entries, SHA-256 {hashlib.sha256(json.dumps(value).encode()).hexdigest()}"
    else:
        yield key, value


def digest(path: Path) -> str:
    """SHA-256 of a file; of weights by name, since the order of tied ones in a file is not fixed."""
    if path.suffix != ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    total = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        total.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    return total.hexdigest()


def figures(directory: Path, replaced: dict[str, str]) -> dict[str, object]:
    """`file: key` → value, of all that a job left. `replaced`: texts, such as paths, and what stands for them."""
    found: dict[str, object] = {}

    def note(key: str, value: object) -> None:
        if isinstance(value, str):
            for text, name in replaced.items():
                value = value.replace(text, name)
        found[key] = value

    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if not path.is_file() or "checkpoints/" in name or path.name in ("emissions.json", "seconds.json"):
            continue
        if path.name == "metrics.jsonl":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                for key, value in flat(json.loads(line)):
                    note(f"{name}, line {number}: {key}", value)
        elif path.name == "manifest.json":
            values = json.loads(path.read_text(encoding="utf-8"))
            for key, value in flat({key: values[key] for key in OF_A_MANIFEST if key in values}):
                note(f"{name}: {key}", value)
        elif path.name == "tokenizer.json" or path.suffix in HASHED or path.suffix == ".safetensors":
            note(f"{name}: SHA-256", digest(path))
        elif path.suffix == ".json":
            for key, value in flat(json.loads(path.read_text(encoding="utf-8"))):
                note(f"{name}: {key}", value)
    return found


def run_tree(tree: Path, names: list[str], out: Path) -> dict:
    """Run the jobs on a tree; job → figures."""
    tree = tree.resolve()
    where = subprocess.run([sys.executable, "-c", "import toolkit; print(toolkit.__file__)"], capture_output=True,
                           text=True, check=True, cwd=tree, env=environment(tree, Job(()))).stdout.strip()
    if not Path(where).is_relative_to(tree):
        raise SystemExit(f"{tree}: its recipes would import {where}, of another tree.")
    write_inputs(out / "inputs")
    results = {}
    for name in with_needs(names):
        began = time.perf_counter()
        run_job(name, tree, out)
        results[name] = figures(out / name, {str(out): "OUT", str(tree): "TREE"})
        print(f"{name}: {len(results[name]):,} figures, {time.perf_counter() - began:.0f} s", flush=True)
    for name in ("data", "small"):  # corpora, tokenizers, stores
        if (out / name).exists():
            results[name] = figures(out / name, {str(out): "OUT"})
    return results


# ---- comparing


def differences(one: dict, other: dict) -> list[str]:
    """A line for every figure that two trees' results do not share, by job and key."""
    lines = []
    for name in [*one, *(name for name in other if name not in one)]:
        if name not in one or name not in other:
            lines.append(f"{name}: only in the {'first' if name in one else 'second'}")
            continue
        mine, theirs = one[name], other[name]
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            if key not in mine or key not in theirs:
                side, value = ("first", mine[key]) if key in mine else ("second", theirs[key])
                lines.append(f"{name}, {key}: {value!r}, only in the {side}")
            elif json.dumps(mine[key]) != json.dumps(theirs[key]):  # NaN is NaN, 1 is not 1.0
                lines.append(f"{name}, {key}: {mine[key]!r}, {theirs[key]!r}")
    return lines


def unlike_unbroken(results: dict) -> list[str]:
    """How runs that were broken off and resumed differ from those that were not."""
    pairs = [("unbroken", "resumed"), ("two-processes", "two-resumed")]
    return [f"{broken} against {whole}: {line.partition(', ')[2]}" for whole, broken in pairs
            if whole in results and broken in results
            for line in differences({"run": results[whole]}, {"run": results[broken]})]


def without_bad_steps(results: dict) -> list[str]:
    """Jobs that are there to meet bad steps and met none: they would show nothing."""
    return [f"{name}: no step was bad; raise the learning rate or lower training.loss_spike" for name in results
            if name.startswith("bad-steps") and not any(key.endswith(": bad_step") for key in results[name])]


def tell(lines: list[str], most: int = 100) -> int:
    for line in lines[:most]:
        print(line)
    if len(lines) > most:
        print(f"… and {len(lines) - most:,} more")
    print(f"{len(lines):,} differences" if lines else "no difference")
    return 1 if lines else 0


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A worktree of a commit, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="same-results-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], cwd=HERE, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=HERE, check=True)


def measured(tree: Path, names: list[str]) -> dict:
    print(f"— {tree}", flush=True)
    with tempfile.TemporaryDirectory(prefix="same-results-out-") as out:
        return run_tree(tree, names, Path(out))


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tree", type=Path, default=HERE, help="the checkout to run; default: this one")
    options.add_argument("--base", help=f"run this commit, too, and compare; for instance {BASE}")
    options.add_argument("--write", type=Path, help="a JSON file for the figures")
    options.add_argument("--against", type=Path, help="a file of --write to compare with")
    options.add_argument("--compare", type=Path, nargs=2, help="compare two such files; nothing is run")
    options.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS), metavar="JOB",
                         help=", ".join(JOBS))
    asked = options.parse_args(argv)
    if asked.compare:
        return tell(differences(*(json.loads(path.read_text(encoding="utf-8")) for path in asked.compare)))
    before = json.loads(asked.against.read_text(encoding="utf-8")) if asked.against else None
    if asked.base:
        with checkout(asked.base) as tree:
            before = measured(tree, asked.jobs)
    results = measured(asked.tree, asked.jobs)
    if asked.write:
        asked.write.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if before is not None:
        before = {name: before[name] for name in before if name in results or asked.jobs == list(JOBS)}
    lines = unlike_unbroken(results) + without_bad_steps(results)
    return tell(lines + (differences(before, results) if before is not None else []))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
