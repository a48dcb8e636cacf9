"""The training loop: one for BERT, GPT, text and series; on one core, several processes or a cluster.

A task says what is learned (model, batches, losses, evaluation). The loop says when. Losses are sums over the rows a
process holds, divided by the *global* number of predicted items, so that processes and accumulation change nothing.
"""

import gc
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from toolkit.errors import Diverged, Interrupted
from toolkit.pretrained import saved_model
from toolkit.run.directory import Run
from toolkit.run.files import disk_errors, write_directory
from toolkit.training import checkpoint
from toolkit.training.budget import Budget
from toolkit.training.feed import StepDataset, num_tokens, seed_everything, steps_from, to_device
from toolkit.training.guard import MOST_IN_A_ROW, Beginning, Guard, Moment, what_is_bad
from toolkit.training.impl.distributed import from_main, reduce_sums, tell_once
from toolkit.training.impl.precision import ImplConfig, choose
from toolkit.training.impl.sharding import Sharded, whole
from toolkit.training.impl.sharding import is_asked_for as sharding_is_asked_for
from toolkit.training.impl.signals import Signals
from toolkit.training.observers.base import Observer, Observers, Training
from toolkit.training.observers.standard import of_every_run
from toolkit.training.optim import learning_rate_factor, make_optimizers
from toolkit.training.state import State
from toolkit.training.task import Task, TrainingConfig, check, loss_of
from toolkit.training.warm_up import compiled_graphs, mean_losses, memory_told, remarks, warm_up
from toolkit.training.weight_average import WeightAverage


def train(task: Task, config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator, seed: int,
          name: str = "training", observers: Sequence[Observer] = (), **parts) -> dict[str, float]:
    """Train until the budget is used, resuming from the newest valid checkpoint; returns the evaluation of the model
    that is kept, the best by `task.best_metric`, with the `best_step` it was made at, and what all steps took.

    The kept model is in `run.model_dir`. Raises `Interrupted` when a signal asked to stop, after saving, and `Diverged`
    as `config.on_bad_step` says. observers: told beside those of every run, on rank 0; parts: of `Trainer`.
    """
    trainer = Trainer(task, config, impl, run, accelerator, seed, name, observers, **parts)
    with disk_errors(run.directory, "output_dir"), run.staying():
        return trainer.train()


@dataclass
class Step:
    """One step of all processes, before it is made."""

    micro_batches: list[dict[str, torch.Tensor]]
    counts: dict[str, float]
    """Objective → predicted items of the global batch."""
    tokens: int
    asked_to_stop: bool
    began: float
    waited: float
    """Seconds until its batch was there."""
    rate_factor: float = 1.0
    """Of the peak learning rates."""


@dataclass
class Due:
    """What is to be done after a step."""

    logging: bool
    evaluating: bool
    saving: bool
    stopping: bool


class Trainer:
    """One training, from where it stands to the end of its budget. Parts that tests replace are arguments."""

    def __init__(self, task: Task, config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator,
                 seed: int, name: str = "training", observers: Sequence[Observer] = (), *,
                 make_optimizers: Callable[..., list[torch.optim.Optimizer]] = make_optimizers,
                 make_guard: Callable[..., Guard] = Guard, count_graphs: Callable[[], int] = compiled_graphs,
                 clock: Callable[[], float] = time.perf_counter):
        self.budget = Budget(config)
        check(config, impl, accelerator)
        self.task, self.config, self.impl, self.run, self.accelerator = task, config, impl, run, accelerator
        self.seed, self.name, self.given_observers = seed, name, observers
        self.make_optimizers, self.make_guard, self.count_graphs, self.clock = (make_optimizers, make_guard,
                                                                               count_graphs, clock)
        self.rank, self.world, self.device = accelerator.process_index, accelerator.num_processes, accelerator.device
        self.is_main, self.is_sharded = accelerator.is_main_process, sharding_is_asked_for() and self.world > 1
        self.precision = choose(impl, self.device)
        self.plain_model = task.model.to(self.device)
        self.precision.prepare(self.plain_model)

    def train(self) -> dict[str, float]:
        self._begin()
        with Signals() as signals, _frozen(), self._watched():
            if self.state.evaluation_due:
                self._evaluate()
            while not self.finished:
                step = self._next_step(signals)
                losses, gradient_norm = self._learn(step)
                self._update(step, losses, gradient_norm)
                due = self._due(step)
                self._answer(self.guard.look(due.logging or due.evaluating or due.saving))
                means = self._running_means() if due.logging else {}
                self._take_time(step)
                if due.logging:
                    self._log(step, means, gradient_norm)
                if due.saving:
                    self._save(evaluation_due=due.evaluating)
                if due.stopping:
                    raise Interrupted(signals.number or signal.SIGTERM, self.state.step)
                if due.evaluating:
                    self._evaluate()
                    if self.finished and self.config.save_steps and not due.saving:  # it stopped early
                        self._save()
            kept = self.state.kept or self._evaluate_again()
            self.observers.ended(kept)
        self.accelerator.wait_for_everyone()
        state = self.state
        return {**kept, "steps": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 1),
                "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1)}

    # --- the beginning ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Where to begin: the first process decides, so that all begin there. Then weights, optimisers, observers."""
        newest = checkpoint.newest_valid(self.run.checkpoint_dir) if self.is_main else None
        path, passed_over = from_main(self.accelerator, newest)
        for reason in passed_over:
            self.accelerator.print(f"passed over {reason}")
        self.state = state = State.read({} if path is None else checkpoint.read_state(path), self.rank, self.world)
        self.beginning = Beginning(state.began)
        self.budget.limit = state.limit or self.budget.limit
        self.used = self.budget.used(state.step, state.tokens, state.seconds)
        self.finished = self.used >= 1 or self._has_stopped_early()
        dataset = StepDataset(self.task, self.config.batch_size, self.accelerator, self.impl)
        if self.used < 1:
            self._introduce()
            self.meter = warm_up(self.task, self.plain_model, dataset, state.step, self.precision, self.accelerator,
                                 self.name)
        self.sharded = Sharded(self.plain_model, self.device) if self.is_sharded else None
        self.optimizers = self.make_optimizers(self.plain_model, self.config, self.precision.optimizer_dtype)
        self.parameters = [parameter for optimizer in self.optimizers for group in optimizer.param_groups
                           for parameter in group["params"]]
        trained = [parameter for parameter in self.plain_model.parameters() if parameter.requires_grad]
        self.average = WeightAverage(trained, self.config.ema_decay) if self.config.ema_decay else None
        self.stepped = [*self.optimizers, *([self.average] if self.average else [])]
        if path is not None:
            checkpoint.load(path, self.plain_model, self.stepped)
            if self.is_main:
                checkpoint.tidy(path, self.config.save_total_limit)
        self.model = self.plain_model if self.sharded else self.accelerator.prepare(self.plain_model)
        # On a CPU asking costs nothing. A GPU decides by itself, and is asked when it is waited for anyway.
        at_once = self.device.type != "cuda" or self.sharded is not None
        self.guard = self.make_guard(self.config, self.device, at_once=at_once, state=state.guard)
        self.batches = steps_from(dataset, state.step, self.precision.num_workers, self.device.type == "cuda")
        self.last_step_seconds, self.durations = 0.0, []  # of rank 0's steps
        self.graphs = self.count_graphs() if self.precision.compile else 0
        self.model.train()

    def _introduce(self) -> None:
        step = self.state.step
        resuming = f", resuming at step {step:,} with {100 * self.used:.0f} % of {self.budget.name} used" * bool(step)
        sharding = f", sharded over {self.world} processes" * self.is_sharded
        tell_once(self.accelerator, self.name, self.precision.describe(), sharding + resuming)
        for remark in remarks(self.impl, self.precision):
            tell_once(self.accelerator, self.name, remark)
        if self.config.early_stopping_patience and not self.config.eval_steps:
            tell_once(self.accelerator, self.name, "training.early_stopping_patience does nothing, since "
                      "training.eval_steps is 0: there is one evaluation, at the end")

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Within, rank 0 has its observers; they are closed however it ends."""
        self.observers = Observers()
        if self.is_main:
            config, unit = self.config, self.meter.unit if self.used < 1 else "tokens"
            training = Training(self.run.directory, self.name, self.state.step, self.used, unit, loss_of(self.task))
            own = of_every_run(training, config.report_to, config.emissions, config.country, self.state.evaluation_due)
            self.observers = Observers([*own, *self.given_observers])
        try:
            yield
        finally:
            self.observers.close()

    # --- a step -----------------------------------------------------------------------------------------------------

    def _next_step(self, signals: Signals) -> Step:
        """The next batch; and what all ranks must agree on: counts, the clock, signals, hence the rate and the end."""
        state, budget, began = self.state, self.budget, self.clock()
        micro_batches, counts = next(self.batches)
        waited = self.clock() - began
        first = int(self.rank == 0)  # one clock for all, or their learning rates would differ
        counts = reduce_sums(self.accelerator, {
            **counts, "signal": signals.received, "tokens": num_tokens(micro_batches),
            "seconds": first * state.seconds, "last": first * self.last_step_seconds})
        stop, tokens = bool(counts.pop("signal")), int(counts.pop("tokens"))
        seconds, expected = counts.pop("seconds"), counts.pop("last")
        if budget.minutes and state.limit is None:
            self.durations += [expected] * (expected > 0)
            state.limit = budget.steps_in_time(state.step, seconds, self.durations)
            if state.limit:
                budget.limit = state.limit
                self.accelerator.print(f"{self.name}: {budget.told(self.config.max_steps)}")
        before = budget.used(state.step, state.tokens, seconds)
        self.used = budget.used(state.step + 1, state.tokens + tokens, seconds + expected)
        self.finished = self.used >= 1
        factor = learning_rate_factor(self.config, min(1.0, (before + self.used) / 2))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        return Step(micro_batches, counts, tokens, stop, began, waited, factor)

    def _learn(self, step: Step) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Gradients of all micro-batches, clipped; each objective's part of its mean, and the norm before clipping."""
        losses: dict[str, torch.Tensor] = {}
        for number, micro in enumerate(step.micro_batches):
            seed_everything(self.seed, self.state.step, self.rank, number)
            micro = to_device(micro, self.device)
            last = number == len(step.micro_batches) - 1
            with nullcontext() if last else self._no_sync(), memory_told(
                    self.task, self.plain_model, micro, step.counts, self.precision, self.world, self._save):
                means = mean_losses(self.task, self.model, micro, step.counts, self.precision)
                (sum(means.values()) * self.world).backward()  # gradients are averaged over processes
            for key, value in means.items():
                losses[key] = losses.get(key, 0) + value.detach()
        return losses, _clip(self.parameters, self.config.max_grad_norm)

    def _no_sync(self):
        return self.sharded.no_sync() if self.sharded else self.accelerator.no_sync(self.model)

    def _update(self, step: Step, losses: dict[str, torch.Tensor], gradient_norm: torch.Tensor) -> None:
        """The optimisers' step, unless the guard finds loss or gradient bad."""
        state, loss = self.state, sum(losses.values())
        if self.world > 1 and self.config.loss_spike:
            torch.distributed.all_reduce(loss)
        good = self.guard.step(self.stepped, loss, gradient_norm, state.moment())
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        state.running = {key: state.running.get(key, 0) + torch.where(good, value, 0) for key, value in losses.items()}
        state.step += 1
        state.running_steps += 1
        state.tokens += step.tokens

    def _due(self, step: Step) -> Due:
        config, done = self.config, self.state.step
        stopping = step.asked_to_stop and not self.finished
        return Due(logging=done % config.logging_steps == 0 or self.finished,
                   evaluating=self.finished or bool(config.eval_steps and done % config.eval_steps == 0),
                   saving=bool(config.save_steps and (done % config.save_steps == 0 or self.finished)) or stopping,
                   stopping=stopping)

    def _take_time(self, step: Step) -> None:
        state = self.state
        if not self.precision.compile or self.graphs == (graphs := self.count_graphs()):
            self.last_step_seconds = self.clock() - step.began
        else:  # a new shape was compiled, which no budget counts
            self.graphs = graphs
        state.seconds += self.last_step_seconds
        if self.finished:
            state.seconds = self.budget.filled(state.seconds)
        self.observers.update(self.used)
        self.meter.step(step.tokens, self.last_step_seconds, step.waited)

    # --- what is told and kept --------------------------------------------------------------------------------------

    def _running_means(self) -> dict[str, float]:
        """Of all ranks, since the last logged line."""
        return reduce_sums(self.accelerator, {key: float(value) / max(1, self.state.running_steps)
                                              for key, value in self.state.running.items()})

    def _log(self, step: Step, means: dict[str, float], gradient_norm: torch.Tensor) -> None:
        state, speed, total = self.state, self.meter.record(), sum(means.values())
        if state.running_steps:
            self.observers.log({"step": state.step, "loss": total,
                                **{f"{key}_loss": value for key, value in means.items()},
                                "learning_rate": self.config.learning_rate * step.rate_factor, "tokens": state.tokens,
                                **speed, "grad_norm": float(gradient_norm)})
        if self.beginning.has_not_fallen(self.used, total):
            self.accelerator.print(f"{self.name}: after {100 * self.used:.0f} % the loss is {total:.3f}, not below "
                                   f"{self.beginning.first:.3f}, where it began")
            tell_once(self.accelerator, "usual causes", "a learning rate too high or too low, labels that do not "
                      "belong to their rows, or a start that knows the task already")
        state.forget_running()

    def _evaluate(self, log: bool = True) -> None:
        """The task's own, with the mean of the weights where there is one; a model that is the best is kept."""
        with self.average.in_place() if self.average else nullcontext():
            self.model.eval()
            with self.sharded.gathered() if self.sharded else nullcontext(), torch.inference_mode(), \
                    self.precision.autocast(), self.precision.uncompiled():
                metrics = self.task.evaluate(self.plain_model, self.accelerator, self.precision)
            self.model.train()
            if log:
                self.observers.log({"step": self.state.step,
                                    **{f"eval_{key}": value for key, value in metrics.items()}})
            self.run.check_place()
            self.observers.sync()
            if self.state.is_better(metrics[self.task.best_metric]):
                self.state.kept = {**metrics, "best_step": self.state.step}
                best = self.sharded.whole() if self.sharded else self.plain_model
                if self.is_main:
                    write_directory(self.run.model_dir, lambda directory: self.task.save(best, directory))
        self.state.evaluation_due = False
        self.finished = self.finished or self._has_stopped_early()
        self.observers.evaluated()
        self.run.tell()

    def _evaluate_again(self) -> dict[str, float]:
        """Of a run whose last checkpoint an earlier version wrote, which does not say what the kept model scored."""
        self._evaluate(log=False)  # the last step's may be better still
        if self.state.kept is None:
            model = saved_model(type(self.plain_model), self.run.model_dir).to(self.device).eval()
            self.precision.prepare(model)
            with torch.inference_mode(), self.precision.autocast(), self.precision.uncompiled():
                self.state.kept = self.task.evaluate(model, self.accelerator, self.precision)
        return self.state.kept

    def _has_stopped_early(self) -> bool:
        patience = self.config.early_stopping_patience
        return patience is not None and self.state.no_better >= patience

    def _save(self, evaluation_due: bool = False) -> None:
        """A checkpoint. One that is followed by an evaluation says so: a run that resumes from it makes it."""
        state = self.state
        mine = {key: float(value) for key, value in state.running.items()}
        running = gather_object([mine]) if self.world > 1 else [mine]
        state.guard, state.began = self.guard.state(), self.beginning.state()
        saved = checkpoint.snapshot(self.plain_model, self.stepped)
        if self.is_main:
            self.run.check_place()
            self.run.check_inputs()
            self.observers.sync()
            checkpoint.save(self.run.checkpoint_dir, state.step, saved,
                            {**state.saved(running), "evaluation_due": evaluation_due}, self.config.save_total_limit)
        self.accelerator.wait_for_everyone()

    # --- bad steps --------------------------------------------------------------------------------------------------

    def _answer(self, bad_steps: list[Moment]) -> None:
        """As `on_bad_step` says; their updates were not made."""
        if not bad_steps:
            return
        state, config, name = self.state, self.config, self.name
        state.running_steps -= len(bad_steps)
        for moment in bad_steps:
            self.accelerator.print(f"{name}: the {what_is_bad(moment, config)}; its update was not made")
            self.observers.log({"step": moment.step + 1, "bad_step": moment.step})
        going_back = self.is_main and config.on_bad_step == "back"
        last = from_main(self.accelerator, checkpoint.newest_valid(self.run.checkpoint_dir)[0] if going_back else None)
        if config.on_bad_step == "skip" and self.guard.in_a_row < MOST_IN_A_ROW:
            return
        if last is not None and self.guard.in_a_row < MOST_IN_A_ROW:
            self.guard.restore(checkpoint.load(last, self.plain_model, self.stepped)["guard"])
            state.forget_running()
            self.accelerator.print(f"{name}: back to the weights of {last.name}, on with batch {state.step:,}")
            return
        self._give_up(bad_steps[0])

    def _give_up(self, moment: Moment) -> None:
        self.state.back_to(moment)
        self._save()
        what = what_is_bad(moment, self.config)
        if self.guard.in_a_row > 1:
            what += f", as those of the {self.guard.in_a_row - 1} steps before it"
        advice = (f"See its rows (`make show-batch STEP={moment.step} CONFIG=…`); then give the same command with "
                  f"--training.on_bad_step skip (or back), or start anew with a lower learning rate.")
        if moment.no_gradient:
            advice = "What lies between them is broken: try --impl.compile false or --impl.layers transformers."
        raise Diverged(f"{self.name}: the {what}. The state before it is saved. {advice}")


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
