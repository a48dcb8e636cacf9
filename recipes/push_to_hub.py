"""Push a run's model, tokenizer, card, plots, configuration and metrics to the hub; private unless you say otherwise.

    make push RUN=runs/demo/bert REPO=you/little-bert ARGS="--dry_run"      # which files, how large, and where to
    make push RUN=runs/demo/bert REPO=you/little-bert
    make push RUN=runs/demo/bert REPO=you/little-bert ARGS="--space true"   # and a page that asks it, as make app
    python recipes/push_to_hub.py runs/demo/bert you/little-bert --tag v1 --checkpoints true

What goes is listed by name (weights, configuration, tokenizer, the card with its pictures, config.yaml,
metrics.jsonl); what else lies there stays. Everything is gathered and checked in <run>/hub-staging first: weights
open and are finite, the card's metadata can be read, no file holds a secret, a path of this machine or a pickle. Give
the same command again to continue after a failure, or to push what changed; where nothing did, no commit is made.
Pulling is `from_pretrained("you/little-bert")`, and every recipe takes such a name where it takes a directory, also
with a branch or tag: you/little-bert@v1.
"""

from dataclasses import dataclass, field

from toolkit import cli, config


@dataclass
class PushConfig:
    run: str
    """The run directory: of a pretrained model, or of one arm and seed of a fine-tuned one."""
    repo: str
    """owner/name on the hub; the owner is you, or an organisation of yours."""
    private: bool = True
    """Of a new repository; a public one that exists is pushed to with `false` only."""
    revision: str = "main"
    """The branch that is pushed to."""
    tag: str = ""
    """A name for the commit, such as v1, that stays on it."""
    checkpoints: bool = False
    """Also the weights of each checkpoint that is kept, as branches step-100, step-200 …"""
    with_code: bool = False
    """Of classes of this package (pooled text classifiers, series models) also the code, so that they load elsewhere,
    with trust_remote_code=True."""
    unfinished: bool = False
    """Push the best model so far of a run that has not ended."""
    leave_out: list[str] = field(default_factory=list)
    """Files that stay here: config.yaml, metrics.jsonl, pictures."""
    predictions: bool = False
    """Also what holds held-out data of yours: *-predictions.parquet, with the texts of the test set, and the card's
    samples."""
    space: bool = False
    """Also a Space of the same name, a page that asks the model, as `make app` does: needs the extra `app`."""
    dry_run: bool = False
    """Gather and check everything, tell what would be pushed and where to, and end; needs no network and no token."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(PushConfig, __doc__, ["run", "repo"])

import re
import shutil
from pathlib import Path

from toolkit.app.asked import open_asked
from toolkit.errors import UserError
from toolkit.publishing.push import Pushed, Remote, check_name, megabytes
from toolkit.publishing.space import stage_space
from toolkit.publishing.staging import FOLDER, Staged, check_run, stage, stage_checkpoint


def push_to_hub(settings: PushConfig) -> list[Pushed]:
    """What became of each branch."""
    run = Path(settings.run)
    check_name(settings.repo)
    for name in ("revision", "tag"):
        if not re.fullmatch(r"(?!.*(?:\.\.|//|/$|\.lock$|/\.))[\w][\w./-]*|", getattr(settings, name)):
            raise UserError(f"{name} is '{getattr(settings, name)}', which git does not take for a name.")
    check_run(run, settings.unfinished)
    found = sorted((run / "checkpoints").glob("step-*")) if settings.checkpoints else []
    if settings.checkpoints and not found:
        raise UserError(f"{run}: has no checkpoints. Push without --checkpoints.")

    # All that will be sent, complete and checked, before anything is.
    final = stage(run, settings.repo, settings.revision or "main", settings.with_code, tuple(settings.leave_out),
                  settings.predictions)
    if final.left:
        print(f"{run}: left here, since no model has it: {', '.join(final.left[:6])}"
              + f" and {len(final.left) - 6} more" * (len(final.left) > 6))
    if final.withheld:
        print(f"{run}: the card's samples are out of held-out data, and stay here; --predictions true sends them")
    staged = [final, *(stage_checkpoint(run, checkpoint, final) for checkpoint in found)]
    if settings.with_code and not final.code:
        print(f"{run}: its class is transformers' own; it loads without code of ours")
    space = None
    if settings.space:
        open_asked(str(run))  # what no page can ask has none
        space = stage_space(run, settings.repo, settings.tag or settings.revision or "main")
    if settings.dry_run:
        tell(settings, staged, space)
        return []

    remote = Remote(settings.repo)
    visibility = remote.open(settings.private)
    pushed = []
    for part in staged:
        start = pushed[0].commit if pushed else "main"
        pushed.append(remote.push(part, f"{run.resolve().name}: {part.branch}", start))
        last = pushed[-1]
        print(f"{settings.repo}, branch {last.branch}: " + (
            f"commit {last.commit[:8]}, {last.sent} files sent, {last.kept} kept" if last.sent
            else f"nothing has changed since commit {last.commit[:8]}; no commit"))
        if last.others and part is final:
            print(f"  on the hub alone, and left there: {', '.join(last.others)}")
    if settings.tag:
        is_new = remote.tag(settings.tag, pushed[0].commit)
        print(f"{settings.repo}: tag {settings.tag} {'is on' if is_new else 'was on'} {pushed[0].commit[:8]}")
    if space is not None:
        push_space(settings, space, visibility)
    shutil.rmtree(run / FOLDER)
    print(f"{remote.endpoint}/{settings.repo} ({visibility})")
    return pushed


def push_space(settings: PushConfig, staged: Staged, visibility: str) -> None:
    """The page that asks the model: after it, so that it finds one."""
    remote = Remote(settings.repo, "space")
    own = remote.open(settings.private)
    remote.push(staged, f"a page for {settings.repo}")
    print(f"{remote.endpoint}/spaces/{settings.repo} ({own})")
    if visibility == "private":
        print("  the model is private: give the Space a secret HF_TOKEN in its settings, a token that may read it")


def tell(settings: PushConfig, staged: list[Staged], space: Staged | None) -> None:
    """Files and sizes, by branch."""
    for part in staged:
        files = part.files()
        print(f"to {settings.repo}, branch {part.branch}: {len(files)} files, {megabytes(sum(files.values()))}")
        for name, size in files.items():
            print(f"  {megabytes(size):>10}  {name}")
    if space is not None:
        files = space.files()
        code = [name for name in files if name.startswith("toolkit/")]
        print(f"to the Space {settings.repo}: {', '.join(name for name in files if name not in code)}, and {len(code)} "
              f"files of toolkit/, {megabytes(sum(files.values()))}")
    visibility = "private" if settings.private else "public"
    print(f"nothing was sent; a new repository would be {visibility}; {staged[0].folder.parent} holds what would be")


def main(argv: list[str]) -> None:
    push_to_hub(config.parse(PushConfig, argv, __doc__, ["run", "repo"]))


if __name__ == "__main__":
    cli.run(main)
