"""What differs between architectures stands in one table, and which module knows a model_type in another."""

import ast
import json
import subprocess
import sys

import pytest
import small
import torch
from torch import nn
from transformers import BertForPreTraining, GPT2LMHeadModel, RobertaConfig

from toolkit.errors import UserError
from toolkit.models import registry
from toolkit.models.families import FAMILIES, family, is_embedding, layer_number, maps_side_by_side, new_backbone
from toolkit.models.text.classifier import TextConfig
from toolkit.training.optim import make_optimizers
from toolkit.training.settings import TrainingConfig

CONFIGS = {"bert": small.bert_config, "gpt2": small.gpt_config}
ARCHITECTURES = {"bert", "gpt", "gpt2", "BERT", "GPT", "GPT-2"}
OTHER_MEANINGS = {"what", "kind", "special_tokens", "normalizer", "pre_tokenizer"}
"""What else is called bert or gpt: kinds of runs on cards, and styles of tokenizers."""


def sources() -> list:
    """But the whole runs in commands/: each is of one family, and says so where another is given."""
    found = [path for path in sorted((small.ROOT / "toolkit").rglob("*.py")) if path.parent.name != "commands"]
    assert len(found) > 50
    return found


def last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def comparisons(tree: ast.AST) -> list[int]:
    """Lines that decide by an architecture's name or class."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            words = {part.value for side in sides for part in ast.walk(side) if isinstance(part, ast.Constant)
                     and isinstance(part.value, str)}
            names = {last_name(side) for side in sides}
            named = "model_type" in names and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
            if named or (words & ARCHITECTURES and not names & OTHER_MEANINGS):
                lines.append(node.lineno)
        if isinstance(node, ast.Call) and last_name(node) in ("isinstance", "issubclass"):
            classes = {last_name(part) for part in ast.walk(node.args[1]) if isinstance(part, ast.Name | ast.Attribute)}
            if any(name.startswith(("Bert", "GPT2")) for name in classes):
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("line", [
    'if config.model_type == "bert": pass', 'x = config.model_type in ("bert", "gpt2")',
    "isinstance(m, (BertLayer, X))",
    'if "gpt2" != family: pass', "isinstance(config, transformers.GPT2Config)", "a.model_type != b.model_type"])
def test_the_search_finds_what_it_is_for(line):
    assert comparisons(ast.parse(line)) == [1]


def test_nothing_else_decides_by_the_name_of_an_architecture():
    found = [f"{path.relative_to(small.ROOT)}:{line}" for path in sources()
             for line in comparisons(ast.parse(path.read_text(encoding="utf-8")))]
    assert not found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_path_leads_somewhere(name):
    known, config = FAMILIES[name], CONFIGS[name](50)
    assert family(config) is known and family(TextConfig(backbone_config=config)) is known
    model = new_backbone(config)
    layers = model.get_submodule(known.layers)
    assert len(layers) == 2 and all(type(layer) is known.layer for layer in layers)
    for layer in layers:
        for _, adds, reads in known.branches:
            assert layer.get_submodule(adds) is not layer.get_submodule(reads)
        query, key = known.query_and_key(layer)
        assert query.shape == key.shape == (32, 32) and not torch.equal(query, key)
        attention = layer.get_submodule(known.attention)
        shapes = {attention.get_submodule(path).weight.shape for path in known.projections}
        assert shapes == {(32, 96) if len(known.projections) == 1 else (32, 32)}
        assert all(hasattr(attention, target) for target in known.lora_targets)
    assert isinstance(model.get_submodule(known.positions), nn.Embedding)
    for field in (*known.dropouts, known.feed_forward_size):
        assert hasattr(config, field)
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    chosen = {name for name, _ in model.named_parameters() if known.is_norm_or_position(name)}
    assert norms <= chosen and {name.rpartition(".")[0] for name in chosen - norms} - {
        name.rpartition(".")[0] for name in norms} == {known.positions}


@pytest.mark.parametrize(("name", "model"), [("bert", BertForPreTraining), ("gpt2", GPT2LMHeadModel)])
def test_parameters_are_placed_by_their_names(name, model):
    names = [key for key, _ in model(CONFIGS[name](50)).named_parameters()]
    assert {layer_number(key) for key in names} == {None, 0, 1}
    embeddings = {key for key in names if is_embedding(key)}
    assert embeddings and all(layer_number(key) is None for key in embeddings)
    assert sum(layer_number(key) is not None for key in names) == 2 * len(list(FAMILIES[name].layer(
        CONFIGS[name](50)).parameters()))
    joint = {key for key in names if maps_side_by_side(key) == 3}
    assert len(joint) == (4 if name == "gpt2" else 0)  # weight and bias of two layers


def test_keys_and_values_of_another_models_states_are_two_maps():
    """A GPT that reads an encoder: Muon orthogonalises each map, and forgets none."""
    config = CONFIGS["gpt2"](50)
    config.add_cross_attention = True
    model = GPT2LMHeadModel(config)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters() if maps_side_by_side(key) == 2
              and value.ndim == 2}
    assert set(shapes.values()) == {(config.n_embd, 2 * config.n_embd)} and len(shapes) == 2
    _, muon = make_optimizers(model, TrainingConfig(max_steps=1, optimizer="muon"))
    taken = sum(len(group["params"]) for group in muon.param_groups)
    assert taken == sum(value.ndim == 2 and layer_number(key) is not None for key, value in model.named_parameters())


def test_another_architecture_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"^the model is a roberta; expected one of bert, gpt2, or a model around one"):
        family(RobertaConfig())


# The registry.


def test_every_model_type_of_ours_is_in_the_table():
    """And the table has no other: type by type, with the module that defines it."""
    found = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and [last_name(target) for target in node.targets] == ["model_type"] \
                    and isinstance(node.value, ast.Constant) and str(node.value.value).startswith("toolkit-"):
                found[node.value.value] = ".".join(path.relative_to(small.ROOT).with_suffix("").parts)
    assert len(found) >= 8 and found.keys() == registry.TABLE.keys()
    for name, module in found.items():  # or the package that takes it in
        assert registry.TABLE[name].module in (module, module.rpartition(".")[0])


def test_a_checkpoint_is_enough_to_find_its_class(tmp_path):
    """In a process that has imported none of the modules."""
    for name in registry.TABLE:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": name, "architectures": ["X"]}))
    program = f"""
import sys
from toolkit.models import registry
assert "transformers" not in sys.modules, "reading the table takes seconds"
from toolkit.models.load import checkpoint_config
for name, entry in registry.TABLE.items():
    config = checkpoint_config({str(tmp_path)!r} + "/" + name)
    assert config.model_type == name and type(config).__module__.startswith(entry.module), config
    assert registry.model_class(config) is None
    config.architectures = [type(config).__name__]
    assert registry.model_class(config) is type(config)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=small.ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_a_class_reads():
    assert registry.reads_text("toolkit-text") and registry.reads_text("bert") and registry.reads_text(None)
    assert not registry.reads_text("toolkit-recurrent")
    assert registry.module_of("bert") is None
