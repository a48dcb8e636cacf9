"""What of a run goes to the hub: gathered in a folder, and checked there, before the first byte is sent.

    of model/: weights, configuration, tokenizer, by name;  README.md (the card) and the pictures that it shows;
    config.yaml  metrics.jsonl;  predictions where they are asked for

Whatever else lies there stays, and is told; so do hidden folders. A link is refused: it may lead anywhere.

A checkpoint becomes a folder of its own: the final model's files with that step's weights.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UserError
from toolkit.pretrained import saved_model
from toolkit.publishing import card
from toolkit.publishing.card_facts import Facts
from toolkit.publishing.privacy import is_pickle, refuse_private_text
from toolkit.run.directory import home
from toolkit.run.files import disk_errors, read_json, room_for, write_directory
from toolkit.run.schema import WeightIndex

FOLDER = "hub-staging"
_WITH_CODE = """
## Without the package

The code of its class lies beside the weights, and transformers alone runs it where you say that you trust it:
`from_pretrained("{repository}", trust_remote_code=True)` of the Auto class.
"""
_OF_A_MODEL = re.compile(
    r"(config|generation_config|preprocessor_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|series_bins|target_tokenizer/(tokenizer|tokenizer_config|special_tokens_map|added_tokens))\.json|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|intervals\.json|vocab\.txt"
    r"|merges\.txt|[\w.-]*\.model|chat_template\.(jinja|json)")
"""What of `model/` goes to the hub, by name: what transformers, and this toolkit, write and read. Nothing else."""
_SHOWN = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Staged:
    """A folder that is complete and checked, for one branch of a repository."""

    folder: Path
    branch: str
    code: bool = False
    """Whether code of ours is in it, for trust_remote_code."""
    left: tuple[str, ...] = ()
    """Files beside them that are no part of a model, and stay."""
    withheld: bool = False
    """Whether the card here shows samples of held-out data, which stay, too."""

    def files(self) -> dict[str, int]:
        """Path in the repository → bytes."""
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size
                for path in sorted(self.folder.rglob("*")) if path.is_file()}


def check_run(run: Path, unfinished: bool) -> None:
    """UserError unless there is a model to push."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run directory.")
    if not (run / "model" / "config.json").is_file():
        below = sorted(str(path.parent.parent) for path in run.glob("*/**/model/config.json"))
        hint = f"Give one of the runs below it: {', '.join(below[:4])}." if below else "Let the run finish."
        if (run / "config.json").is_file():
            hint = f"Give the run it is of: {run.parent}."
        raise UserError(f"{run}: holds no model to push (model/config.json is missing). {hint}")
    if not unfinished and not (run / "result.json").is_file():
        raise UserError(f"{run}: is not finished (result.json is missing). Give the command that started it again, and "
                        f"push then; or push the best model so far with --unfinished true.")


def stage(run: Path, repository: str, branch: str, with_code: bool = False, leave_out: tuple[str, ...] = (),
          predictions: bool = False) -> Staged:
    """Gather the final model and what explains it in `<run>/hub-staging/<branch>`, and check it.

    leave_out: names of files that stay here: config.yaml, metrics.jsonl, pictures. predictions: whether what holds
    texts or series of held-out data goes, too: tables of predictions, and the card's samples where the data are not
    built in or generated. UserError names the file, and the line, of what must not be pushed or is broken.
    """
    for place in (run / "model", run / "plots", run / FOLDER):
        _refuse_link(place)
    if not (run / "README.md").is_file():
        card.regenerate(run)
    written = (run / "README.md").read_text(encoding="utf-8")
    text = _for_hub(run, written, repository)
    public = text if predictions else card.without_held_out(text)
    sources, left = _sources(run, public, predictions)
    optional = [name for name in sources if _is_optional(name)]
    if unknown := set(leave_out) - set(optional):
        raise UserError(f"leave_out names {min(unknown)}. Files that can be left out: {', '.join(optional)}.")
    sources = {name: path for name, path in sources.items() if name not in leave_out}
    folder, code = run / FOLDER / branch.replace("/", "-"), []

    def fill(temporary: Path) -> None:
        room_for(sum(path.stat().st_size for path in sources.values()), temporary)
        model = os.stat(run / "model")
        try:
            for name, path in sources.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, temporary / name)
            replaced = not os.path.samestat(model, os.stat(run / "model"))
        except FileNotFoundError:
            replaced = True
        if replaced:
            raise UserError(f"{run}: a better model was written while this one was copied. Give the same command "
                            f"again.")
        if with_code:
            from toolkit.publishing.model_code import add_model_code

            code.extend(add_model_code(temporary))
        more = _WITH_CODE.format(repository=repository) if code else ""
        (temporary / "README.md").write_text(_without_pictures(public, leave_out) + more, encoding="utf-8")
        check(temporary, sources)

    with disk_errors(folder.parent, "place for the run"):
        write_directory(folder, fill)
    return Staged(folder, branch, bool(code), left, public != text)


def stage_checkpoint(run: Path, checkpoint: Path, final: Staged) -> Staged:
    """The final model's files with the weights of `checkpoint`, a directory step-…, for a branch of that name."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    step = int(checkpoint.name.removeprefix("step-"))
    weights = checkpoint / "model.safetensors"
    for place in (checkpoint.parent, checkpoint, weights, checkpoint / "manifest.json"):
        _refuse_link(place)
    with open(weights, "rb") as file:
        known = read_json(checkpoint / "manifest.json", dict[str, str]).get(weights.name)
        if hashlib.file_digest(file, "sha256").hexdigest() != known:
            raise UserError(f"{weights}: does not match its checksum. Delete {checkpoint}; the others are pushed then.")
    folder = run / FOLDER / f"step-{step}"
    wanted = [name for name in final.files() if os.path.dirname(name) in ("", "target_tokenizer")
              and name.endswith((".json", ".txt", ".model", ".jinja", ".py"))]

    def fill(temporary: Path) -> None:
        room_for(weights.stat().st_size, temporary)
        for name in wanted:
            if not name.endswith(".index.json"):
                (temporary / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(final.folder / name, temporary / name)
        with safe_open(weights, "pt") as file:
            tied = file.metadata() or {}
            names = _tensor_names(final.folder)
            held = set(file.keys())
            if absent := [name for name in names if name not in held and tied.get(name) not in held]:
                raise UserError(f"{weights}: lacks {absent[0]}, which the final model has; such checkpoints (of "
                                f"adapters, as with tuning: lora) are no models by themselves. Push without "
                                f"--checkpoints.")
            tensors = {name: file.get_tensor(name if name in held else tied[name]) for name in names}
        save_file(tensors, str(temporary / "model.safetensors"), {"format": "pt"})
        (temporary / "README.md").write_text(_checkpoint_card(final.folder / "README.md", step), encoding="utf-8")
        check(temporary, {})

    with disk_errors(folder.parent, "place for the run"):
        write_directory(folder, fill)
    return Staged(folder, f"step-{step}", final.code)


def _is_optional(name: str) -> bool:
    return name in ("config.yaml", "metrics.jsonl") or name.startswith("plots/") or name.endswith(".png")


def _for_hub(run: Path, text: str, repository: str) -> str:
    """The run's card, its code loading the model from the hub."""
    facts = Facts.of(run)
    if text == card.text(facts):
        return card.text(facts, repository)
    # Edited by hand, or of another time: only what is not true of the hub is changed.
    text = re.sub(r" `\./model` is the folder beside this file, `[^`]*`\.", "", text)
    return text.replace('"./model"', f'"{repository}"')


def _without_pictures(text: str, names: tuple[str, ...]) -> str:
    """A card that does not show what stays here."""
    for name in names:
        text = re.sub(rf"!\[[^\]]*\]\({re.escape(name)}\)\n*", "", text)
    return text


def _sources(run: Path, text: str, predictions: bool) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Path in the repository → file of the run; and what lies among them and stays here. text: the card that goes."""
    card_of_run = run / "README.md"
    sources = {card_of_run.name: card_of_run}
    place = home(run)  # of one fit of several, the configuration lies above it
    above = run if place is None or run.resolve() == place.resolve() else place
    wanted = [*([] if place is None else [above / "config.yaml"]), run / "metrics.jsonl"]
    if predictions:
        wanted += sorted({*run.glob("*-predictions.parquet"), *above.glob("*-predictions.parquet")})
    sources |= {path.name: path for path in wanted if path.is_file()}
    shown = {target for _, target in _pictures(text)}
    of_model = {path.relative_to(run / "model").as_posix(): path for path in sorted((run / "model").rglob("*"))}
    pictures = {path.relative_to(run).as_posix(): path for path in sorted([*(run / "plots").rglob("*"),
                                                                          *run.glob("*.png")])}
    chosen = {name: path for name, path in of_model.items() if _OF_A_MODEL.fullmatch(name)}
    chosen |= {name: path for name, path in pictures.items() if name in shown}
    left = tuple(path.relative_to(run).as_posix() for path in (*of_model.values(), *pictures.values())
                 if path not in chosen.values() and not path.is_dir())
    sources |= chosen
    for path in sources.values():
        _refuse_link(path)
        if not path.is_file():
            raise UserError(f"{path}: is no regular file, and is not pushed. Move it away.")
    return sources, left


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path}: is a link, and what it leads to is not pushed. Put the file itself there, or move "
                        f"the link away.")


# --- what must not be pushed, and what is broken ------------------------------------------------------------------


def check(folder: Path, sources: dict[str, Path]) -> None:
    """UserError when a file in `folder` holds a pickle, a secret or a path of this machine, or is no sound checkpoint.

    sources: where its files come from, which is what messages name.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            shown = str(sources.get(name, name))
            if is_pickle(path):
                raise UserError(f"{shown}: is a pickle, which can run code on whoever loads it, and is not pushed. "
                                f"Save weights as safetensors (save_pretrained), other arrays as text; or move it "
                                f"away.")
            remedy = f"keep the file here with --leave_out {name}" if _is_optional(name) else "edit that line"
            refuse_private_text(path, shown, remedy)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{sources.get('config.json', folder)}: lies beside no weights (model.safetensors).")
    for path in weights:
        _check_weights(path, str(sources.get(path.name, path.name)))
    for index in folder.glob("*.safetensors.index.json"):
        if absent := set(read_json(index, WeightIndex)["weight_map"].values()) - {path.name for path in weights}:
            raise UserError(f"{sources.get(index.name, index.name)}: names {min(absent)}, which is missing.")
    _check_card(folder, str(sources.get("README.md", "README.md")))
    _check_that_it_loads(folder, str(sources.get("config.json", "config.json")))


def _check_weights(path: Path, shown: str) -> None:
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and (wrong := int((~torch.isfinite(tensor)).sum())):
                    raise UserError(f"{shown}: {wrong:,} of the {tensor.numel():,} numbers of {name} are no finite "
                                    f"numbers: the run has diverged. Train again, with a lower learning rate.")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{shown}: cannot be read as safetensors, perhaps cut short ({error}). Give the command that "
                        f"made the run again.") from None


def _check_that_it_loads(folder: Path, shown: str) -> None:
    import transformers

    from toolkit.models.load import checkpoint_config
    from toolkit.models.registry import model_class

    transformers.logging.disable_progress_bar()
    config = checkpoint_config(folder)
    model = model_class(config)
    if model is None:
        raise UserError(f"{shown}: names the class {config.architectures}, which neither transformers nor this toolkit "
                        f"has.")
    try:
        report = saved_model(model, folder, shown, output_loading_info=True)[1]
    except (OSError, RuntimeError) as error:
        raise UserError(f"{shown}: the model does not load ({str(error).splitlines()[0]}).") from None
    for what, kind in (("lack", "missing_keys"), ("hold besides", "unexpected_keys")):
        if keys := sorted(report[kind]):
            raise UserError(f"{shown}: the model does not load: its weights {what} {keys[0]} and {len(keys) - 1} more, "
                            f"for {model.__name__} as it is now. They are of another version; train again.")


def _tensor_names(folder: Path) -> list[str]:
    from safetensors import safe_open

    names = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names += file.keys()
    return names


def _check_card(folder: Path, shown: str) -> None:
    """Its metadata are a YAML mapping that huggingface_hub reads; the pictures and files it shows are there."""
    import yaml
    from huggingface_hub import ModelCard

    text = (folder / "README.md").read_text(encoding="utf-8")
    if not text.startswith("---\n"):
        raise UserError(f"{shown}, line 1: a card begins with its metadata, between two lines of ---.")
    try:
        ModelCard(text)
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{shown}: its metadata cannot be read ({' '.join(str(error).split())}).") from None
    for number, target in _pictures(text):
        if not re.match(r"[a-z]+:", target) and not (folder / target).is_file():
            raise UserError(f"{shown}, line {number}: shows {target}, which is not pushed with it. Pictures lie beside "
                            f"the card, or in plots/.")


def _pictures(text: str) -> Iterator[tuple[int, str]]:
    """(line, address) of what a card shows: not what only reads so in its metadata, or in code."""
    until = ""
    for number, line in enumerate(text.splitlines(), 1):
        if until:
            until = "" if line.startswith(until) else until
        elif line.startswith(("```", "~~~")) or number == 1 and line == "---":
            until = line[:3]
        else:
            yield from ((number, target) for target in _SHOWN.findall(line))


def _checkpoint_card(final: Path, step: int) -> str:
    """The card of a branch: what the final model's says of origins, none of its results."""
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCard(final.read_text(encoding="utf-8")).data.to_dict()
    kept = {key: data[key] for key in ("license", "language", "library_name", "pipeline_tag", "tags", "datasets",
                                       "base_model") if key in data}
    return (f"---\n{ModelCardData(**kept).to_yaml()}\n---\n\n# Weights after step {step:,}\n\n"
            f"A checkpoint of the run whose final model, card and results are on the branch `main`. Nothing was "
            f"measured on these weights by themselves.\n")
