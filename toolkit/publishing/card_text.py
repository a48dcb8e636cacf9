"""The sections of a card, from what a run's directory says. What nobody stated is said to be not stated."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from toolkit.metrics.intervals import proportion_interval
from toolkit.models.families import FAMILIES
from toolkit.models.losses import LOSSES
from toolkit.publishing.card_facts import Facts
from toolkit.shown import as_code, in_markdown
from toolkit.tasks import registry as tasks
from toolkit.tasks.base import Description

NOT_STATED = "not stated"


def describe(facts: Facts) -> Description | None:
    """What its task says of the model; None where there is no model, or one of no task."""
    return tasks.describe(facts.architecture, facts.module, facts.model) if facts.architecture else None


def kind(facts: Facts) -> str:
    """The kind of its model's task; experiment where there is no model; else other."""
    if not facts.architecture:
        compares = "models" in facts.config or facts.comparison is not None
        return "experiment" if compares and not facts.is_fit else "other"
    description = describe(facts)
    return description.kind if description else "other"


def usage(facts: Facts, model: str) -> str:
    """Code that loads the model and asks it something."""
    what = kind(facts)
    reading = (facts.model or {}).get("text_input") or {}
    if what == "text" and (reason := _no_pipeline(reading, facts)):
        texts = '["A text to classify."]' + ', ["A second text."]' * bool(reading["pairs"])
        return (f"# Not by transformers' pipeline, {reason}\nfrom toolkit import answer_texts\n\n"
                f'print(answer_texts("{model}", {texts}))')
    if what in ("bert", "gpt", "text") and facts.tokenizer:
        tokens = min(40, facts.shape.get("n_positions", 80) // 2)
        known = "" if facts.module is None else f"import {facts.module}  # makes the model's class known\n"
        call = {
            "bert": ("fill-mask", f'for answer in ask({json.dumps(example(facts), ensure_ascii=False)}):\n'
                                  '    print(answer["token_str"], round(answer["score"], 3))'),
            "gpt": ("text-generation",
                    f'print(ask("{example(facts)}", max_length={tokens}, do_sample=True)[0]["generated_text"])'),
            "text": ("text-classification", 'print(ask({"text": "A text.", "text_pair": "Another."}, truncation=True))'
                     if reading.get("pairs") else 'print(ask("A text to classify.", truncation=True))')}[what]
        return f'{known}from transformers import pipeline\n\nask = pipeline("{call[0]}", model="{model}")\n{call[1]}'
    if what == "seq2seq" and facts.tokenizer:
        return _writes(facts, model)
    module = facts.module or "transformers"
    name = facts.architecture
    load = f'from {module} import {name}\n\nmodel = {name}.from_pretrained("{model}").eval()'
    if what in ("series", "forecast"):
        values = facts.model
        length = next((values[key] for key in ("context_length", "series_length", "length") if values.get(key)), 128)
        shape = f"randn(1, {values.get('num_channels', 1)}, {length})  # (series, channels, samples)"
        if what == "series":  # the model's own class reads values that are scaled already
            return (f"import numpy as np\nfrom toolkit import answer_series\n\nvalues = np.random.{shape}, in the "
                    f'units of its training file\nprint(answer_series("{model}", values))')
        given = ""
        if known := values.get("num_covariates"):
            given = ", covariates=covariates"
            shape += (f"\ncovariates = torch.zeros(1, {known}, {length + values['horizon']})  # known ahead: (series, "
                      f"features, samples and steps ahead)")
        return (f"import torch\n{load}\nvalues = torch.{shape}\nprint(model(values{given}).prediction)  # (series, "
                f"channels, steps ahead)")
    if facts.series_sources:
        return (f"import numpy as np\nfrom toolkit.inference.sampling import load_series_gpt, sample_paths\n\n"
                f'model, bins = load_series_gpt("{model}")\nvalues = np.random.randn(1, 128)  # (series, values), in '
                f"any unit\npaths = sample_paths(model, bins, values)\nprint(np.median(paths, axis=1))  # (series, "
                f"values ahead)")
    if what == "gpt":
        return f"import torch\n{load}\nprint(model(torch.zeros(1, 1, dtype=torch.long)).logits.shape)"
    return f"{load}\nprint(model)"


def _writes(facts: Facts, model: str) -> str:
    """As its test set was answered: by transformers alone where the search is greedy and the class is its own."""
    asked = json.dumps(facts.written[0]["source"] if facts.written and facts.is_public else "A text.",
                       ensure_ascii=False)
    beams = (facts.model.get("decoding") or {}).get("num_beams", 1)
    if facts.module is not None or beams > 1:
        return f'from toolkit import translate\n\nprint(translate("{model}", [{asked}]))'
    own = (facts.directory / "model/target_tokenizer").is_dir()
    end = "eos_token_id" if (facts.tokenizer or {}).get("eos_token") else "sep_token_id"
    writes = f'AutoTokenizer.from_pretrained("{model}", subfolder="target_tokenizer")' if own else "tokenizer"
    return (f'import torch\nfrom transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{model}")\nwriter = {writes}\n'
            f'model = AutoModelForSeq2SeqLM.from_pretrained("{model}").eval()\n'
            f'ids = tokenizer({asked}, add_special_tokens=False)["input_ids"] + [tokenizer.{end}]\n'
            f'print(writer.decode(model.generate(torch.tensor([ids]))[0], skip_special_tokens=True))')


def example(facts: Facts) -> str:
    """What to ask it, in English."""
    mask = (facts.tokenizer or {}).get("mask_token", "[MASK]")
    return {"bert": f"There is a {mask} here.", "gpt": "The"}.get(kind(facts), "A text to classify.")


def _no_pipeline(reading: dict, facts: Facts) -> str:
    """Why transformers' pipeline would answer otherwise than was scored; nothing where it would not."""
    if reading.get("long_texts") == "head+tail":
        return "which cannot cut a long text to its head and tail"
    own_class = (facts.tokenizer or {}).get("tokenizer_class") not in ("TokenizersBackend", "PreTrainedTokenizerFast")
    if reading.get("pairs") and reading.get("joint") is not None and own_class:
        return "which puts nothing between two texts"
    return ""


def heading(facts: Facts) -> str:
    """One sentence on what it is; and, above everything, that a run has not ended."""
    shape, what = facts.shape, kind(facts)
    size = f"{facts.parameters:,} parameters" if facts.parameters else ""
    known = FAMILIES.get(shape.get("model_type"))
    inside = known.title if known else facts.architecture or "model"
    lines = []
    if facts.result is None:
        steps = facts.records[-1]["step"] if facts.records else 0
        last = f"after step {facts.evaluation['step']:,}" if "step" in facts.evaluation else "not there yet"
        fits = ""
        if what == "experiment":
            done = len([*facts.directory.glob("*/*/result.json"), *facts.directory.glob("*/*/*/result.json")])
            fits, last = f" {done} of its fits have ended.", "not there yet"
        lines.append(f"> **This run has not ended.**{fits or f' It has come to step {steps:,}.'} Its figures are "
                     f"{last}, and what is below may change.\n")
    if description := describe(facts):
        started = _start(facts) if facts.base or what == "text" else ""
        sentence = description.sentence(inside, size, started, facts.evaluation)
        if facts.sorts:
            sentence = f"A {inside} of {size}, trained from scratch to sort six letters."
        elif facts.series_sources:
            sentence = f"A {inside} of {size}, trained to continue time series, value by value, as tokens."
    elif what == "experiment":
        sentence = _compared(facts)
    elif "methods" in facts.config:
        sentence = "Word vectors of one corpus, by method."
    elif "num_samples" in facts.config:
        sentence = "Forecasts sampled from a GPT that learned series as tokens, beside simpler ones."
    else:
        sentence = f"A {facts.architecture} of {size}." if size else "What a recipe left behind; it holds no model."
    return "\n".join([*lines, sentence])


def _compared(facts: Facts) -> str:
    """What kind of comparison it is, and how large."""
    if facts.comparison is None:
        return "A comparison of models on one task, over seeds."
    rows = facts.comparison.rows
    if facts.is_pairs:
        arms = {row.arm: row.run for row in rows}
        seeds, fits = len({row.seed for row in rows}), [arm for arm, run in arms.items() if run]
        over = f"over {seeds} seed{'s' * (seeds > 1)}"
        if len(fits) == 1:
            return f"An encoder–decoder ({in_markdown(fits[0])}) that turns one text into another, {over}."
        return (f"A comparison of {len(fits)} encoder–decoders that turn one text into another, on the same pairs, "
                f"{over}.")
    arms, sets = (len({getattr(row, key) for row in rows}) for key in ("arm", "set"))
    seeds = len({row.seed for row in rows})
    what = "forecasts" if facts.comparison.sizes == "horizon" else "models"
    return (f"A comparison of {what}: {arms} arms, baselines among them, {f'on {sets} data sets' if sets > 1 else ''}"
            f"{', ' if sets > 1 else ''}each on the same data, over {seeds} {'seeds' if seeds > 1 else 'seed'}.")


def _start(facts: Facts) -> str:
    if stated := (facts.config.get("card") or {}).get("base_model"):
        return as_code(stated)
    base = facts.base  # a folder is called as its run is
    if facts.base_run:
        base = facts.base_run.name
    elif base.startswith(("../", "./", "~/")) or Path(base).exists():
        base = "/".join([part for part in base.split("/") if part not in ("..", ".", "~", "model", "runs")][-2:])
    return f"random values, in the shape of {as_code(base)}" if facts.is_random else as_code(base)


def architecture(facts: Facts) -> str:
    shape = facts.shape
    names = {"class": facts.architecture, "parameters": facts.parameters}
    for label, keys in (("layers", ("num_hidden_layers", "n_layer")), ("width", ("hidden_size", "n_embd")),
                        ("attention heads", ("num_attention_heads", "n_head")),
                        ("feed-forward width", ("intermediate_size", "n_inner")),
                        ("positions", ("max_position_embeddings", "n_positions")), ("vocabulary", ("vocab_size",))):
        names[label] = next((shape[key] for key in keys if shape.get(key)), None)
    names |= {"patch length": facts.model.get("patch_length"), "horizon": facts.model.get("horizon"),
              "pooling": facts.model.get("pooling"), "classes": len(facts.model.get("id2label") or ()) or None
              if kind(facts) in ("text", "series") else None}
    if names["vocabulary"] == 1:
        names["vocabulary"] = None  # of a series model's backbone, whose words patches replace
    return "\n".join(f"* {label}: {number(value)}" for label, value in names.items() if value)


def training(facts: Facts) -> str:
    settings, manifest, result = facts.training, facts.manifest, facts.result or {}
    timed = [record for record in facts.records if "tokens_per_second" in record]
    machine = manifest.get("machine") or {}
    description = describe(facts)
    objective, unit = (description.objective, description.unit) if description else (None, "tokens")
    if objective and "nsp_loss" in facts.evaluation:
        objective += " and next sentences, their losses added"
    if description and description.is_classifier:
        objective = _loss(facts, settings)
    limits = {"max_steps": "steps", "max_tokens": "tokens", "max_minutes": "minutes"}
    budget = " or ".join(f"{settings[key]:,} {what}" for key, what in limits.items() if settings.get(key))
    if " or " in budget:
        budget += ", whichever is less"
    tokens = result.get("tokens") or (timed[-1].get("tokens") if timed else None)
    seen = ((manifest.get("data") or {}).get("tokens") or {}).get("train")
    processor = f"{machine.get('cores')} cores of {machine.get('model') or machine.get('processor')}"
    rows = {
        "objective": objective,
        "optimiser": f"{settings.get('optimizer')}, learning rate {settings.get('learning_rate')}"
                     + (f" (Muon {settings['muon_learning_rate']})" if settings.get("optimizer") == "muon" else "")
                     + f", weight decay {settings.get('weight_decay')}" if settings.get("optimizer") else None,
        "schedule": f"{settings.get('lr_scheduler_type')}, warm-up {settings.get('warmup_ratio')} of the budget"
                    if settings.get("lr_scheduler_type") else None,
        "batch": f"{settings['batch_size']} rows" if settings.get("batch_size") else None,
        "budget": budget,
        "steps": number(result.get("steps") or (facts.records[-1]["step"] if facts.records else None)),
        unit: f"{tokens:,}" + (f", {tokens / seen:.2f} times the corpus" if seen else "") if tokens else None,
        "hardware": (machine.get("gpu") or processor) if machine else None,
        "processes": machine.get("processes", 1) if machine.get("processes", 1) > 1 else None,
        "time": f"{result['seconds']:,.0f} s of training" if "seconds" in result else None,
        "started": _day(manifest.get("started")),
    }
    if timed:
        mean = {key: sum(record[key] for record in timed) / len(timed) for key in ("tokens_per_second", "mfu")}
        rows |= {"speed": f"{result.get('tokens_per_second') or mean['tokens_per_second']:,.0f} {unit}/s, "
                          f"{100 * mean['mfu']:.0f} % of the matrix-product peak measured on that machine (MFU)",
                 "memory": f"{max(record['peak_memory_mb'] for record in timed):,.0f} MB at most"}
    rows |= {"energy": energy(facts), "emissions": emissions(facts)}
    return "\n".join(f"* {label}: {value}" for label, value in rows.items() if value)


def _loss(facts: Facts, settings: dict) -> str:
    """By its name, also where it was left to the kind of label."""
    chosen = settings.get("objective") or {}
    task, name = str((facts.config.get("data") or {}).get("task")), str(chosen.get("loss") or "auto")
    if name == "auto":
        name = LOSSES.get(task, ("cross-entropy",))[0]
    more = [f"classes weighed {chosen['class_weights']}"] if chosen.get("class_weights", "none") != "none" else []
    if chosen.get("label_smoothing_factor"):
        more.append(f"labels smoothed by {chosen['label_smoothing_factor']:g}")
    return ", ".join([in_markdown(name.replace("-", " ") if len(name) > 4 else name.upper()), *map(in_markdown, more)])


def energy(facts: Facts) -> str:
    """What was measured, how, and of what."""
    used = facts.energy
    if used is None:
        return "not measured (`training.emissions: true` measures it)"
    counted = "what the training process itself computed" if used["counted"] == "process" else "the whole machine"
    if used["machines"] > 1:
        counted += f", the first of {used['machines']} machines"
    return (f"{1000 * used['energy_kwh']:.3g} Wh in {used['seconds']:,.0f} s (codecarbon {used['codecarbon']}; "
            f"counted: {counted}{', and the GPU' if used['gpu'] else ''}; processor {used['method']}; memory: "
            f"{3.6e6 * used['ram_kwh'] / used['seconds']:.0f} W assumed)")


def emissions(facts: Facts) -> str:
    used = facts.energy
    if used is None:
        return ""
    if "emissions_kg" not in used:
        return "unknown: in which country the machine stood is not stated (training.country)"
    return f"{1000 * used['emissions_kg']:.3g} g CO₂ equivalent, at the mix of electricity of {used['country']}"


def provenance(facts: Facts) -> str:
    """The exact command and configuration, and what it ran on."""
    manifest = facts.manifest
    versions = ", ".join(f"{name} {version}" for name, version in (manifest.get("versions") or {}).items())
    command = f"```sh\n{manifest['command']}\n```" if "command" in manifest else "The command was not recorded."
    commit = manifest.get("commit") or NOT_STATED
    fit = f"This model: `{facts.part}` of `{facts.config.get('output_dir')}`.\n\n"
    return (f"{command}\n\n{fit if facts.is_fit else ''}Commit `{commit}`; Python {manifest.get('python')}; "
            f"{versions}.\n\n<details><summary>The configuration</summary>\n\n```yaml\n"
            f"{yaml.safe_dump(facts.config, sort_keys=False, allow_unicode=True)}```\n\n</details>")


def share(value: float, count: int, of: str) -> str:
    """A proportion with its 95 % interval (Wilson)."""
    low, high, _ = proportion_interval(round(value * count), count)
    return f"{100 * value:.1f} % (95 %: {100 * low:.1f} – {100 * high:.1f}, of {count:,} {of})"


def number(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None if value is None else str(value)


def _day(moment: str | None) -> str | None:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d}" if moment else None
