"""The sections of a card, from what a run's directory says. What nobody stated is said to be not stated."""

import json
from datetime import datetime
from typing import Any

import yaml

from toolkit.metrics.intervals import proportion_interval
from toolkit.metrics.tabulate import table
from toolkit.models.families import FAMILIES
from toolkit.publishing.card_facts import Facts
from toolkit.shown import as_code, in_markdown
from toolkit.tasks import registry as tasks
from toolkit.tasks.base import Description

NOT_STATED = "not stated"
_PYTHON_DOCS = "PSF-2.0, and those of the packages documented"


def describe(facts: Facts) -> Description | None:
    """What its task says of the model; None where there is no model, or one of no task."""
    return tasks.describe(facts.architecture, facts.module, facts.model) if facts.architecture else None


def kind(facts: Facts) -> str:
    """The kind of its model's task; experiment where there is no model; else other."""
    if not facts.architecture:
        return "experiment" if "models" in facts.config and not facts.is_fit else "other"
    description = describe(facts)
    return description.kind if description else "other"


def usage(facts: Facts, model: str) -> str:
    """Code that loads the model and asks it something."""
    mask = (facts.tokenizer or {}).get("mask_token", "[MASK]")
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
            "bert": ("fill-mask", f'for answer in ask({json.dumps(f"There is a {mask} here.", ensure_ascii=False)}):\n'
                                  '    print(answer["token_str"], round(answer["score"], 3))'),
            "gpt": ("text-generation",
                    f'print(ask("The", max_length={tokens}, do_sample=True)[0]["generated_text"])'),
            "text": ("text-classification", 'print(ask({"text": "A text.", "text_pair": "Another."}, truncation=True))'
                     if reading.get("pairs") else 'print(ask("A text to classify.", truncation=True))')}[what]
        return f'{known}from transformers import pipeline\n\nask = pipeline("{call[0]}", model="{model}")\n{call[1]}'
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
    if what == "gpt":
        return f"import torch\n{load}\nprint(model(torch.zeros(1, 1, dtype=torch.long)).logits.shape)"
    return f"{load}\nprint(model)"


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
    elif what == "experiment":
        sentence = "A comparison of models on one task, each pretrained and from a random start, over seeds."
    else:
        sentence = f"A {facts.architecture} of {size}." if size else "What a recipe left behind; it holds no model."
    return "\n".join([*lines, sentence])


def _start(facts: Facts) -> str:
    return f"random values, in the shape of {as_code(facts.base)}" if facts.is_random else as_code(facts.base)


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
    return "\n".join(f"* {label}: {_number(value)}" for label, value in names.items() if value)


def data(facts: Facts, card: Any) -> str:
    """What it saw: sources, licences, sizes, dates, what was dropped, how it was split."""
    corpus = (facts.manifest.get("data") or {}).get("corpus") or {}
    if "splits" not in corpus:
        return _labelled(facts, card)
    rows = []
    for source in corpus["sources"]:
        licence = card.source_licenses.get(source["source"]) or (
            _PYTHON_DOCS if source["source"] == "python-docs" else NOT_STATED)
        rows.append({"source": as_code(source["source"]), "licence": in_markdown(licence),
                     "documents": f"{source['train']['documents']:,}", "MB": f"{source['train']['bytes'] / 1e6:,.1f}",
                     "held out": f"{source['validation']['documents']:,}"})
    counts, config, splits = corpus["counts"], corpus["config"], corpus["splits"]
    tokens = facts.manifest["data"].get("tokens", {})
    lines = [table(rows, markdown=True), ""]
    for split, title in (("train", "Trained on"), ("validation", "Held out")):
        lines.append(f"* {title}: {splits[split]['documents']:,} documents, {splits[split]['bytes'] / 1e6:,.1f} MB, "
                     f"{tokens.get(split, 0):,} tokens (SHA-256 `{splits[split]['sha256'][:12]}…`)")
    dropped = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if name != "read")
    duplicates = "Documents whose text was seen before were dropped; near duplicates were not looked for." if (
        config["deduplicate"]) else "Nothing was deduplicated."
    split = ("Held out are sources of their own: " + ", ".join(map(as_code, config["validation_sources"]))
             if config["validation_sources"] else
             f"A document is held out when the hash of its text says so ({100 * config['validation_share']:g} % are)")
    lines += [f"* Read: {counts['read']:,} documents; {dropped}. {duplicates}", f"* Split: {split}.",
              f"* When the text was written: {in_markdown(card.written or NOT_STATED)}"]
    if revisions := corpus.get("revisions"):
        lines.append("* Revisions: " + ", ".join(f"{as_code(key)} at {as_code(value)}"
                                                 for key, value in revisions.items()))
    if weights := facts.manifest["data"].get("weights"):
        lines.append(f"* Passes of an epoch over each source: {', '.join(f'{weight:g}' for weight in weights)}")
    return "\n".join(lines)


def _labelled(facts: Facts, card: Any) -> str:
    section = facts.config.get("data") or facts.config.get("series") or {}
    named = {key: value for key, value in section.items() if value not in ("", None, [], {})}
    if named.get("path"):
        named.pop("generated_rows", None)  # which were not needed
    examples = facts.manifest.get("examples") or {}
    lines = [] if named.get("train") or named.get("path") else [f"{in_markdown(task_name(facts).capitalize())}.\n"]
    lines += [f"* {in_markdown(key.replace('_', ' '))}: {as_code(value)}" for key, value in named.items()
              if isinstance(value, (str, int, float))]
    if examples and all(isinstance(value, int) for value in examples.values()):
        prints = (facts.manifest.get("data") or {}).get("labelled") or {}
        lines.append("* Examples: " + ", ".join(
            f"{count:,} {split}" + (f" (SHA-256 `{prints[split][:12]}…`)" if split in prints else "")
            for split, count in examples.items()))
    if (description := describe(facts)) and description.is_classifier:
        names = list((facts.model.get("id2label") or {}).values())
        lines.append(f"* Classes: {', '.join(map(in_markdown, names[:30]))}{' …' if len(names) > 30 else ''}")
    licences = "; ".join(f"{in_markdown(source)}: {in_markdown(licence)}"
                         for source, licence in card.source_licenses.items())
    return "\n".join([*lines, f"* Licence of the data: {licences or NOT_STATED}",
                      f"* When it was gathered: {in_markdown(card.written or NOT_STATED)}"])


def task_name(facts: Facts) -> str:
    """What the labelled data are called."""
    section = facts.config.get("data") or {}
    named = next((str(section[key]) for key in ("test", "train", "path", "generator", "name") if section.get(key)), "")
    if named or "train" not in section:
        return named or facts.home.name
    return ("which package does a passage describe? (the built-in documentation)" if "text_column" in section else
            "cylinder, bell or funnel? (generated)")


def tokenizer(facts: Facts) -> str:
    known = facts.tokenizer
    if not known:
        return ""
    facts_of_data = facts.manifest.get("data") or {}
    splits = (facts_of_data.get("corpus") or {}).get("splits") or {}
    lines = [f"{known.get('algorithm') or known.get('tokenizer_class')}, "
             f"{_number(known.get('size') or facts.shape.get('vocab_size'))} entries"
             + (", lower case" if known["lowercase"] else "")
             + (f"; {as_code(facts.config['tokenizer'])}." if facts.config.get("tokenizer") else ".")]
    tokens = facts_of_data.get("tokens") or {}
    measured = [f"{splits[split]['bytes'] / tokens[split]:.2f} on {title}"
                for split, title in (("train", "the text it was trained on"), ("validation", "held-out text"))
                if splits and tokens.get(split)]
    if measured:
        lines.append(f"Bytes of UTF-8 a token: {', '.join(measured)}. (`make evaluate-tokenizers` measures more.)")
    fingerprint = facts_of_data.get("tokenizer")
    if isinstance(fingerprint, dict):  # of each model of an experiment
        fingerprint = fingerprint.get(facts.model_name)
    if fingerprint:
        lines.append(f"Fingerprint: `{fingerprint[:12]}…`.")
    return " ".join(lines)


def training(facts: Facts) -> str:
    settings, manifest, result = facts.training, facts.manifest, facts.result or {}
    timed = [record for record in facts.records if "tokens_per_second" in record]
    machine = manifest.get("machine") or {}
    description = describe(facts)
    objective, unit = (description.objective, description.unit) if description else (None, "tokens")
    if objective and "nsp_loss" in facts.evaluation:
        objective += " and next sentences, their losses added"
    if description and description.is_classifier and (settings.get("objective") or {}).get("loss"):
        objective = str(settings["objective"]["loss"]).replace("_", " ")
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
        "steps": _number(result.get("steps") or (facts.records[-1]["step"] if facts.records else None)),
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


def _number(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None if value is None else str(value)


def _day(moment: str | None) -> str | None:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d}" if moment else None
