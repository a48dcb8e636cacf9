"""The training loop: one for BERT, GPT, text and series; on one core, several processes or a cluster.

A task says what is learned (model, batches, losses, evaluation). The loop says when. Losses are sums over the rows a
process holds, divided by the *global* number of predicted items, so that processes and accumulation change nothing.
"""

import gc
import math
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from toolkit.errors import Diverged, Interrupted
from toolkit.publishing.card import LiveCard
from toolkit.run.directory import Run
from toolkit.run.files import disk_errors, write_directory
from toolkit.training import checkpoint
from toolkit.training.budget import Budget
from toolkit.training.contract import Task, TrainingConfig, check
from toolkit.training.feed import StepDataset, num_tokens, seed_everything, steps_from, to_device
from toolkit.training.guard import MOST_IN_A_ROW, Beginning, Guard, Moment
from toolkit.training.observers.emissions import EnergyMeter
from toolkit.training.observers.progress import Progress
from toolkit.training.observers.tracking import Tracker
from toolkit.training.optim import WeightAverage, learning_rate_factor, make_optimizers
from toolkit.training.precision import ImplConfig, choose
from toolkit.training.processes.distributed import from_main, reduce_sums
from toolkit.training.processes.sharding import Sharded, whole
from toolkit.training.processes.sharding import is_asked_for as sharding_is_asked_for
from toolkit.training.processes.signals import Signals
from toolkit.training.warm_up import compiled_graphs, mean_losses, memory_told, remarks, warm_up


def train(task: Task, config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator, seed: int,
          name: str = "training", settings: dict | None = None) -> dict[str, float]:
    """Train until the budget is used, resuming from the newest valid checkpoint; returns the final evaluation.

    The best model by `task.best_metric` is in `run.model_dir` afterwards. Raises `Interrupted` when a signal asked to
    stop, after saving, and `Diverged` when a step is bad and `config.on_bad_step` says so.
    """
    with disk_errors(run.directory, "output_dir"):
        return _train(task, config, impl, run, accelerator, seed, name)


def _train(task: Task, config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator, seed: int,
           name: str) -> dict[str, float]:
    budget = Budget(config)
    check(config, impl, accelerator)
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    is_main = accelerator.is_main_process
    precision = choose(impl, device)
    plain_model = task.model.to(device)
    precision.prepare(plain_model)

    # Where to begin: the first process decides, so that all begin there.
    state = {"step": 0, "best": None, "tokens": 0, "seconds": 0.0, "running": [{}], "running_steps": 0, "guard": None,
             "no_better": 0, "began": None, "limit": None}
    path, passed_over = from_main(accelerator, checkpoint.newest_valid(run.checkpoint_dir) if is_main else None)
    for reason in passed_over:
        accelerator.print(f"passed over {reason}")
    if path is not None:
        state |= checkpoint.read_state(path)
    start = done = state.pop("step")
    beginning = Beginning(state["began"])
    budget.limit = state["limit"] or budget.limit
    used = budget.used(start, state["tokens"], state["seconds"])
    dataset = StepDataset(task, config.batch_size, accelerator, impl)
    if used < 1:
        resuming = f", resuming at step {start:,} with {100 * used:.0f} % of {budget.name} used" if start else ""
        sharding = f", sharded over {world} processes" if sharding_is_asked_for() and world > 1 else ""
        accelerator.print(f"{name}: {precision.describe()}{sharding}{resuming}")
        for remark in remarks(impl, precision):
            accelerator.print(f"{name}: {remark}")
        meter = warm_up(task, plain_model, dataset, start, precision, accelerator, name)

    sharded = Sharded(plain_model, device) if sharding_is_asked_for() and world > 1 else None
    optimizers = make_optimizers(plain_model, config, precision.optimizer_dtype)
    if path is not None:
        checkpoint.load(path, plain_model, optimizers)
    model = plain_model if sharded else accelerator.prepare(plain_model)
    average = next((optimizer for optimizer in optimizers if isinstance(optimizer, WeightAverage)), None)
    parameters = [parameter for optimizer in optimizers if optimizer is not average
                  for group in optimizer.param_groups for parameter in group["params"]]
    # On a CPU asking costs nothing. A GPU decides by itself, and is asked when it is waited for anyway.
    guard = Guard(config, device, at_once=device.type != "cuda" or sharded is not None, state=state.pop("guard"))
    tracker = energy = None
    watching = ExitStack()
    if is_main:
        run.directory.mkdir(parents=True, exist_ok=True)
        tracker, card = Tracker(run.directory, start, config.report_to), LiveCard(run.directory)
        watching.callback(tracker.close)
        if config.emissions:
            energy = EnergyMeter(run.directory / "emissions.json", config.country)
            watching.callback(energy.close)

    def save(step: int) -> None:
        mine = {key: float(value) for key, value in running.items()}
        state["running"] = gather_object([mine]) if world > 1 else [mine]
        state["running_steps"], state["guard"], state["began"] = running_steps, guard.state(), beginning.state()
        saved = checkpoint.snapshot(plain_model, optimizers)
        if is_main:
            run.check_inputs()
            tracker.sync()
            checkpoint.save(run.checkpoint_dir, step, saved, state, config.save_total_limit)
        accelerator.wait_for_everyone()

    def evaluate(step: int, log: bool = True) -> dict[str, float]:
        with average.in_place() if average else nullcontext():
            return evaluate_weights(step, log)

    def evaluate_weights(step: int, log: bool) -> dict[str, float]:
        model.eval()
        with sharded.gathered() if sharded else nullcontext(), torch.inference_mode(), precision.autocast(), \
                precision.uncompiled():
            metrics = task.evaluate(plain_model, accelerator, precision)
        model.train()
        if tracker is not None and log:
            tracker.log({"step": step, **{f"eval_{key}": value for key, value in metrics.items()}})
        value = metrics[task.best_metric]
        if state["best"] is None or value < state["best"] or math.isnan(state["best"]):
            state["best"], state["no_better"] = value, 0
            finished_model = sharded.whole() if sharded else plain_model
            if is_main:
                write_directory(run.model_dir, lambda directory: task.save(finished_model, directory))
        else:
            state["no_better"] += 1
        if energy is not None:
            energy.save()
        if is_main:
            card.refresh()
        return metrics

    def has_stopped_early() -> bool:
        return config.early_stopping_patience is not None and state["no_better"] >= config.early_stopping_patience

    metrics: dict[str, float] = {}
    # Sums since the last logged line; part of a checkpoint, so that a resumed run logs what an unbroken one does.
    saved, running_steps = state["running"], state["running_steps"]
    if len(saved) == world:
        running = dict(saved[rank])
    else:  # saved by another number of processes: the sum is what counts
        running = {key: sum(part[key] for part in saved) if rank == 0 else 0.0 for key in saved[0]}
    progress = Progress(name, used, is_main)
    batches = steps_from(dataset, start, precision.num_workers, device.type == "cuda")
    durations: list[float] = []  # of rank 0's steps
    last_step_seconds, finished = 0.0, used >= 1 or has_stopped_early()

    def answer(bad_steps: list[Moment]) -> None:
        nonlocal done, running, running_steps
        running_steps -= len(bad_steps)
        for moment in bad_steps:
            accelerator.print(f"{name}: the {_what_is_bad(moment, config)}; its update was not made")
            if tracker is not None:
                tracker.log({"step": moment.step + 1, "bad_step": moment.step})
        last = checkpoint.newest_valid(run.checkpoint_dir)[0] if is_main and config.on_bad_step == "back" else None
        last = from_main(accelerator, last)
        if config.on_bad_step == "skip" and guard.in_a_row < MOST_IN_A_ROW:
            return
        if last is not None and guard.in_a_row < MOST_IN_A_ROW:
            guard.restore(checkpoint.load(last, plain_model, optimizers)["guard"])
            running, running_steps = {}, 0
            accelerator.print(f"{name}: back to the weights of {last.name}, on with batch {done:,}")
            return
        first = bad_steps[0]
        done, state["tokens"], running, running_steps = first.step, first.tokens, first.running, first.running_steps
        save(done)
        what = _what_is_bad(first, config)
        if guard.in_a_row > 1:
            what += f", as those of the {guard.in_a_row - 1} steps before it"
        advice = (f"See its rows (`make show-batch STEP={done} CONFIG=…`); then give the same command with "
                  f"--training.on_bad_step skip (or back), or start anew with a lower learning rate.")
        if first.no_gradient:
            advice = "What lies between them is broken: try --impl.compile false or --impl.layers transformers."
        raise Diverged(f"{name}: the {what}. The state before it is saved. {advice}")

    model.train()
    graphs = compiled_graphs() if precision.compile else 0
    with Signals() as signals, _frozen(), watching:
        while not finished:
            began = time.perf_counter()
            micro_batches, counts = next(batches)
            waited = time.perf_counter() - began
            first = int(rank == 0)  # one clock for all, or their learning rates would differ
            counts = reduce_sums(accelerator, {
                **counts, "signal": signals.received, "tokens": num_tokens(micro_batches),
                "seconds": first * state["seconds"], "last": first * last_step_seconds})
            stop, tokens = int(counts.pop("signal")), int(counts.pop("tokens"))
            seconds, expected = counts.pop("seconds"), counts.pop("last")
            if budget.minutes and state["limit"] is None:
                durations += [expected] * (expected > 0)
                state["limit"] = budget.steps_in_time(done, seconds, durations)
                if state["limit"]:
                    budget.limit = state["limit"]
                    accelerator.print(f"{name}: {budget.told(config.max_steps)}")
            before = budget.used(done, state["tokens"], seconds)
            used = budget.used(done + 1, state["tokens"] + tokens, seconds + expected)
            finished = used >= 1
            factor = learning_rate_factor(config, min(1.0, (before + used) / 2))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
            losses: dict[str, torch.Tensor] = {}
            for number, micro in enumerate(micro_batches):
                seed_everything(seed, done, rank, number)
                micro = to_device(micro, device)
                last = number == len(micro_batches) - 1
                with nullcontext() if last else sharded.no_sync() if sharded else accelerator.no_sync(model), \
                        memory_told(task, plain_model, micro, counts, precision, world, partial(save, done)):
                    means = mean_losses(task, model, micro, counts, precision)
                    (sum(means.values()) * world).backward()  # gradients are averaged over processes
                for key, value in means.items():
                    losses[key] = losses.get(key, 0) + value.detach()
            gradient_norm = _clip(parameters, config.max_grad_norm)
            loss = sum(losses.values())
            if world > 1 and config.loss_spike:
                torch.distributed.all_reduce(loss)
            good = guard.step(optimizers, loss, gradient_norm, Moment(done, state["tokens"], running, running_steps))
            for optimizer in optimizers:
                optimizer.zero_grad()
            running = {key: running.get(key, 0) + torch.where(good, value, 0) for key, value in losses.items()}
            done += 1
            running_steps += 1
            state["tokens"] += tokens
            logging = done % config.logging_steps == 0 or finished
            evaluating = finished or bool(config.eval_steps and done % config.eval_steps == 0)
            saving = config.save_steps and (done % config.save_steps == 0 or finished) or (stop and not finished)
            if bad_steps := guard.look(logging or evaluating or saving):
                answer(bad_steps)
            if logging:
                means = reduce_sums(accelerator, {key: float(value) / max(1, running_steps)
                                                  for key, value in running.items()})
            if not precision.compile or graphs == (graphs := compiled_graphs()):
                last_step_seconds = time.perf_counter() - began  # unless a new shape was compiled: no budget counts it
            state["seconds"] += last_step_seconds
            if finished:
                state["seconds"] = budget.filled(state["seconds"])
            progress.update(used)
            meter.step(tokens, last_step_seconds, waited)
            if logging:
                speed = meter.record()
                total = sum(means.values())
                if tracker is not None and running_steps:
                    tracker.log({"step": done, "loss": total,
                                 **{f"{key}_loss": value for key, value in means.items()},
                                 "learning_rate": config.learning_rate * factor, "tokens": state["tokens"], **speed,
                                 "grad_norm": float(gradient_norm)})
                progress.report(done, means, speed)
                if beginning.has_not_fallen(used, total):
                    accelerator.print(
                        f"{name}: after {100 * used:.0f} % of the budget the loss is {total:.3f}, not below the "
                        f"{beginning.first:.3f} of its beginning. Usual causes: a learning rate too high or too low, "
                        f"labels that do not belong to their rows, or a start that knows the task already.")
                running, running_steps = {}, 0
            if evaluating:
                metrics = evaluate(done)
                finished = finished or has_stopped_early()
            if saving or (finished and config.save_steps):
                save(done)
            if stop and not finished:
                progress.close()
                raise Interrupted(signals.number or signal.SIGTERM, done)
    progress.close()
    if not metrics:  # resumed after the last step, whose evaluation is in metrics.jsonl already
        metrics = evaluate(done, log=False)
    accelerator.wait_for_everyone()
    return {**metrics, "steps": done, "tokens": state["tokens"], "seconds": round(state["seconds"], 1),
            "tokens_per_second": round(state["tokens"] / max(state["seconds"], 1e-9), 1)}


def _what_is_bad(moment: Moment, config: TrainingConfig) -> str:
    if moment.no_gradient:
        return f"gradient of step {moment.step:,} is exactly zero though its loss is not"
    return f"loss or gradient of step {moment.step:,} is no finite number" + " or leaps" * bool(config.loss_spike)


def _clip(parameters: list[torch.nn.Parameter], largest: float) -> torch.Tensor:
    """As torch.nn.utils.clip_grad_norm_, which multiplies all gradients by 1 where nothing is to be clipped; largest
    0 measures them only. Returns the norm before.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = whole(torch.nn.utils.get_total_norm(gradients))
    if not largest:
        return norm
    if norm.device.type != "cpu" or not norm <= largest:  # looking at it costs nothing on a CPU
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm


@contextmanager
def _frozen() -> Iterator[None]:
    """What exists now will stay: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
