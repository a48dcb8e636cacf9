"""Push and pull over real sockets, to and from a hub on loopback that also fails on purpose."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pushable
import pytest
import torch
from hub import Fault, Hub
from hub_child import Child, Reply
from safetensors.torch import load_file

from toolkit.models.series.patches import SeriesForClassification
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.classifier import TextForClassification

TOLD: list[str] = []
"""All that was ever printed or logged: no token, no signed address."""


class Side:
    """A user's side: runs below `directory`, and a process that knows the hub."""

    def __init__(self, hub: Hub, directory: Path) -> None:
        self.hub, self.directory, self.token = hub, directory, hub.add_account("ada")
        self.child = Child(hub.environment(), directory)

    def ask(self, token: str | None = "", **order) -> Reply:
        self.hub.requests.clear()
        env = order.pop("env", {}) | ({} if token is None else {"HF_TOKEN": token or self.token})
        reply = self.child.ask(env=env, **order)
        TOLD.extend([reply.out, reply.err])
        return reply

    def push(self, *more: str, run: str = "runs/bert", repo: str = "ada/bert", **order) -> Reply:
        return self.ask(recipe="push_to_hub", argv=["--run", run, "--repo", repo, *more], **order)

    def sent(self, what: str) -> list[str]:
        return [request for request in self.hub.requests if request.startswith(what)]

    def fresh(self) -> None:
        """An empty hub that does not fail."""
        self.hub.repositories.clear()
        self.hub.stored.clear()
        self.hub.faults.clear()


@pytest.fixture(scope="module")
def side(tmp_path_factory, wordpiece):
    directory = tmp_path_factory.mktemp("ada")
    with Hub() as hub:
        side = Side(hub, directory)  # starts while the runs are made
        bert = pushable.bert_run(directory / "runs/bert", wordpiece)
        pushable.text_run(directory / "runs/text", bert, wordpiece)
        pushable.series_run(directory / "runs/series", bert)
        yield side
        side.child.stop()


@pytest.fixture(autouse=True)
def empty(side):
    side.fresh()


def test_what_was_pushed_is_pulled_in_a_fresh_process(side, tmp_path, wordpiece):
    """Empty caches, no toolkit, a private hub: the same logits, of transformers' own class and of ours."""
    for name, more in (("bert", ()), ("text", ("--with_code", "true")), ("series", ("--with_code", "true"))):
        reply = side.push(*more, run=f"runs/{name}", repo=f"ada/{name}")
        assert reply.answer == 0, reply.err
    assert side.hub.model("ada/bert").private
    assert len(side.sent("PUT /lfs/")) == 1 and side.sent("POST /api/models/ada/series/commit/main")
    batch = wordpiece(["the sea and the river", "a garden"], padding=True, return_tensors="pt")
    torch.save({**batch, "values": torch.randn(2, 1, 40)}, tmp_path / "inputs.pt")
    program = """
import sys
sys.modules["toolkit"] = None
import numpy as np, torch
from transformers import AutoModelForPreTraining, AutoModelForSequenceClassification, AutoTokenizer
inputs = torch.load("inputs.pt")
values = inputs.pop("values")
bert = AutoModelForPreTraining.from_pretrained("ada/bert")
text = AutoModelForSequenceClassification.from_pretrained("ada/text", trust_remote_code=True)
series = AutoModelForSequenceClassification.from_pretrained("ada/series", trust_remote_code=True)
with torch.inference_mode():
    np.savez("outputs.npz", bert=bert(**inputs).prediction_logits, text=text(**inputs).logits,
             series=series(values).logits)
print(AutoTokenizer.from_pretrained("ada/bert")("the sea and the river")["input_ids"])
"""
    environment = side.hub.environment() | {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": side.token}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wordpiece("the sea and the river")["input_ids"]
    inputs, pulled = torch.load(tmp_path / "inputs.pt"), np.load(tmp_path / "outputs.npz")
    values = inputs.pop("values")
    for name, model in (("bert", BertForPreTraining), ("text", TextForClassification),
                        ("series", SeriesForClassification)):
        model = model.from_pretrained(side.directory / f"runs/{name}/model").eval()
        with torch.inference_mode():
            output = model(values) if name == "series" else model(**inputs)
        logits = output.prediction_logits if name == "bert" else output.logits
        assert np.array_equal(pulled[name], logits.numpy()), name
    assert any("GET /cdn/" in request for request in side.hub.requests)  # the weights, from another host


def test_pushing_again_makes_no_commit_and_a_change_one_of_its_file(side):
    first = side.push()
    assert first.out.splitlines()[0].startswith("ada/bert, branch main: 8 files to send (0.")
    assert first.out.splitlines()[-1] == f"{side.hub.url}/ada/bert (private)"
    assert not (side.directory / "runs/bert/hub-staging").exists()
    repository = side.hub.model("ada/bert")
    head = repository.branches["main"]
    assert head.files.keys() == {".gitattributes", "README.md", "config.json", "config.yaml", "metrics.jsonl",
                                 "model.safetensors", "plots/loss.png", "tokenizer.json", "tokenizer_config.json"}
    assert not set(head.files) & {"optimizer.pt", "result.json", "manifest.json"}
    again = side.push()
    assert again.answer == 0
    assert f"branch main: nothing has changed since commit {head.sha[:8]}; no commit" in again.out
    assert repository.branches["main"] is head
    assert not [request for request in side.hub.requests if "preupload" in request or "PUT" in request]
    metrics = side.directory / "runs/bert/metrics.jsonl"
    before = metrics.read_text()
    metrics.write_text(before + '{"step": 3}\n')
    changed = side.push()
    metrics.write_text(before)
    assert "branch main: 1 files to send (0.1 kB), 7 there already" in changed.out
    now = repository.branches["main"]
    assert now.parent is head and {name for name in now.files if now.files[name] != head.files.get(name)} == {
        "metrics.jsonl"}
    assert not side.sent("PUT")


def test_branches_and_tags_for_checkpoints(side):
    side.hub.add_model("ada/bert", {"notes.md": b"mine"}, private=True)
    reply = side.push("--checkpoints", "true", "--tag", "v1")
    assert reply.answer == 0, reply.err
    assert "on the hub alone, and left there: notes.md" in reply.out
    repository = side.hub.model("ada/bert")
    assert repository.branches.keys() == {"main", "step-10", "step-20"}
    assert repository.tags["v1"] is repository.branches["main"]
    assert repository.branches["main"].files["notes.md"] == b"mine"
    program = """
from transformers import AutoModelForPreTraining, AutoTokenizer
from toolkit.hub import checkpoint_directory
from toolkit.tokenization.load import load_tokenizer
answer = [AutoModelForPreTraining.from_pretrained("ada/bert", revision=revision).cls.seq_relationship.bias.tolist()
          for revision in ("main", "v1", "step-10", "step-20")]
answer += [len(load_tokenizer("ada/bert@step-10")), checkpoint_directory("ada/bert@v1").name]
"""
    *biases, words, commit = side.ask(program=program).answer
    assert biases == [[1, 1], [1, 1], [10, 10], [20, 20]] and words > 100
    assert commit == repository.tags["v1"].sha
    again = side.push("--checkpoints", "true", "--tag", "v1")
    assert again.out.count("nothing has changed") == 3 and "tag v1 was on" in again.out
    side.push("--leave_out", "metrics.jsonl", "--revision", "dev")
    assert set(repository.branches["dev"].files) >= {"metrics.jsonl"}  # from main; other files stay
    repository.move("main", repository.branches["step-10"])
    moved = side.push("--tag", "v1")
    assert moved.answer == 2 and "tag v1 is on another commit" in moved.err and "choose another --tag" in moved.err


def test_a_dry_run_sends_nothing(side):
    reply = side.push("--dry_run", token=None)
    assert reply.answer == 0 and "to ada/bert, branch main: 8 files" in reply.out
    assert side.hub.requests == [] and not side.hub.repositories


@pytest.mark.slow
def test_a_space_that_asks_the_model_is_pushed_after_it(side):
    pytest.importorskip("gradio", reason="a Space names gradio's version: the extra `app`")
    dry = side.push("--space", "true", "--dry_run", token=None)
    assert dry.answer == 0 and "to the Space ada/bert: README.md, app.py, requirements.txt, and " in dry.out
    reply = side.push("--space", "true", "--tag", "v1")
    assert reply.answer == 0, reply.err
    assert f"{side.hub.url}/spaces/ada/bert (private)" in reply.out and "a secret HF_TOKEN" in reply.out
    held = side.hub.repositories["spaces/ada/bert"]
    files = held.branches["main"].files
    assert held.private and b'serve_space("ada/bert@v1")' in files["app.py"]
    assert not [name for name in files if name.endswith((".safetensors", "config.json", "metrics.jsonl"))]
    assert side.token.encode() not in b"".join(files.values())
    again = side.push("--space", "true", "--tag", "v1")
    assert again.answer == 0 and side.hub.repositories["spaces/ada/bert"].branches["main"] is held.branches["main"]
    assert not side.sent("POST /api/spaces/ada/bert/commit")


# --- faults -------------------------------------------------------------------------------------------------------


PASSING = {
    "a broken connection at first": (Fault("whoami", drop=0), [1]),
    "errors at creation": (Fault("repos/create", status=502, times=2), [1, 2]),
    "errors of storage": (Fault("PUT /lfs/", status=503, times=2), [1, 2]),
    "connections dropped in the middle of the weights": (Fault("PUT /lfs/", drop=5000, times=3), [1, 2, 4]),
    "an upload whose answer is lost": (Fault("PUT /lfs/", lost=True), [1]),
    "errors of the card's validation": (Fault("validate-yaml", status=500), [1]),
    "a dropped announcement": (Fault("preupload", drop=10), [1]),
    "a dropped commit": (Fault("/commit/main", drop=500), [1]),
    "a commit whose answer is lost": (Fault("/commit/main", lost=True), [1]),
    "too many requests": (Fault("/commit/main", status=429, headers={"Retry-After": "7"}), [7]),
    "too many uploads": (Fault("PUT /lfs/", status=429, headers={"Retry-After": "3"}), [4]),
    "a slow answer": (Fault("whoami", delay=1.4), [1]),
    "a slow commit": (Fault("/commit/main", delay=1.4), [1]),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_waited_for_and_told(side, name):
    fault, waits = PASSING[name]
    side.hub.faults.append(fault)
    reply = side.push(seconds=(1, 1) if fault.delay else (10, 60))
    assert reply.answer == 0, reply.err
    assert fault.times == 0 and reply.waits == waits
    repository = side.hub.model("ada/bert")
    assert repository.branches["main"].parent is not None and repository.branches["main"].parent.parent is None
    if "PUT" not in fault.request and "preupload" not in fault.request:  # those are told by huggingface_hub's log
        assert reply.out.count("the hub: ") == len(waits) and f"; trying again in {waits[0]} s" in reply.out


LASTING = {
    "500s everywhere": (Fault("", status=500, times=99), "is in trouble: it answered 500, planted. Nothing is lost; "
                                                         "the same command continues."),
    "weights never arrive": (Fault("PUT /lfs/", status=503, times=99), "is in trouble: it answered 503"),
    "every upload is cut off": (Fault("PUT /lfs/", drop=3000, times=99), "cannot be reached: "),
    "commits never arrive": (Fault("/commit/", drop=100, times=99), "cannot be reached: "),
    "a token that expired": (Fault("preupload", status=401), "the hub does not accept your token (of 'ada'). Log in "
                                                             "anew with `hf auth login`, or correct HF_TOKEN"),
    "a repository that may not be written": (Fault("preupload", status=403), "your token (of 'ada') may not write to "
                                                                             "what belongs to 'ada' (it answered 403"),
    "somebody else was faster": (Fault("/commit/", status=412), "somebody else pushed to it at this moment."),
    "a conflict": (Fault("/commit/", status=409), "the hub refuses what was sent: it answered 409, planted. Nothing"),
    "too large": (Fault("/commit/", status=413), "the hub refuses what was sent: it answered 413, planted."),
    "a long time of patience": (Fault("whoami", status=429, headers={"Retry-After": "600"}), "asks to wait 600 s"),
    "a hub that never answers": (Fault("whoami", delay=0.5, times=99), "cannot be reached: timed out"),
}


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_ends_with_a_line_and_the_same_command_continues(side, name):
    fault, message = LASTING[name]
    side.hub.faults.append(fault)
    reply = side.push(seconds=(0.3, 0.3) if fault.delay else (10, 60))
    assert reply.answer == 2
    assert reply.err.startswith("error: ada/bert: ") and len(reply.err.splitlines()) == 1 and message in reply.err
    assert sum(reply.waits) < 60
    head = getattr(side.hub.repositories.get("models/ada/bert"), "branches", {}).get("main")
    assert head is None or head.parent is None  # nothing half pushed
    arrived = side.hub.stored.copy()
    side.hub.faults.clear()
    continued = side.push()
    assert continued.answer == 0, continued.err
    assert set(side.hub.model("ada/bert").branches["main"].files) > {"README.md", "model.safetensors"}
    assert len(side.sent("PUT")) == 1 - len(arrived)  # the weights, unless they are there


def test_wrong_accounts_and_names(side):
    cases = {
        "no token to push with. Log in with `hf auth login`, or set HF_TOKEN": dict(token=None),
        "the hub does not accept your token. Log in anew": dict(token="hf_" + "x" * 34),
        "your token (of 'ada') may not write to what belongs to 'bob' (it answered 403, You don't have the rights to "
        "create a model under the namespace \"bob\"). Push to a name of your own, such as ada/bert":
            dict(repo="bob/bert"),
        "your token (of 'carl') may not write to what belongs to 'carl'":
            dict(repo="carl/bert", token=side.hub.add_account("carl", owners=())),
        "no name that the hub takes": dict(repo="ada/bert.git"),
        "repo is 'bert'; give owner/name": dict(repo="bert"),
    }
    for message, order in cases.items():
        reply = side.push(**order)
        assert reply.answer == 2 and message in reply.err and reply.waits == [], message
    assert not side.hub.repositories
    side.hub.add_model("ada/bert", {"README.md": b"---\nlicense: mit\n---\n"})
    reply = side.push()
    assert reply.answer == 2 and "ada/bert: is public on the hub, and you did not ask to publish" in reply.err
    reply = side.push("--private", "false")
    assert reply.answer == 0 and reply.out.endswith("/ada/bert (public)\n")
    side.hub.add_model("bob/bert", {"README.md": b"x"})
    reply = side.push("--private", "false", repo="bob/bert")
    assert reply.answer == 2 and "may not write to what belongs to 'bob' (it answered 403" in reply.err


def test_a_card_that_the_hub_refuses_is_told_before_anything_is_sent(side):
    card = side.directory / "runs/bert/README.md"
    before = card.read_text()
    card.write_text(before.replace("apache-2.0", "all mine"))
    reply = side.push()
    card.write_text(before)
    assert reply.answer == 2 and "the hub refuses what was sent: " in reply.err and "one of the known" in reply.err
    assert not side.sent("PUT")


def test_a_hub_that_is_down_and_one_that_is_not_to_be_asked(side):
    with side.hub.down():
        reply = side.push()
    assert (reply.answer, reply.waits) == (2, [1, 2, 4])
    assert reply.err == (
        f"error: ada/bert: the hub ({side.hub.url}) cannot be reached: [Errno 111] Connection refused. Nothing is "
        f"lost; the same command continues. Check the connection, and status.huggingface.co.\n")
    assert (side.directory / "runs/bert/hub-staging/main/model.safetensors").exists()
    program = """
import huggingface_hub
from toolkit.errors import UserError
from toolkit.publishing.push import Remote
huggingface_hub.constants.HF_HUB_OFFLINE = True
try:
    Remote("ada/bert")
except UserError as error:
    answer = str(error)
finally:
    huggingface_hub.constants.HF_HUB_OFFLINE = False
"""
    assert side.ask(program=program).answer == (
        "ada/bert: HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it; the same command continues.")


# --- a name of the hub in the place of a directory ----------------------------------------------------------------


def test_recipes_take_names_of_the_hub(side):
    for name in ("bert", "text", "series"):
        assert side.push(run=f"runs/{name}", repo=f"ada/{name}").answer == 0
    rows = "".join(f"{'north sea' if index % 2 else 'green garden'} {index}\t{index % 2}\n" for index in range(60))
    (side.directory / "texts.tsv").write_text("text\tlabel\n" + rows)
    (side.directory / "finetune.yaml").write_text(
        "models: {bert: ada/bert}\ndata: {train: texts.tsv, test: texts.tsv, max_length: 16}\nseeds: 1\n"
        "training: {max_steps: 2, batch_size: 4}\n")
    reply = side.ask(recipe="finetune_text", argv=["--config", "finetune.yaml", "--output_dir", "runs/finetuned"])
    assert reply.answer == 0, reply.err
    result = json.loads((side.directory / "runs/finetuned/result.json").read_text())
    assert result["bert"]["pretrained"]["values"] and side.sent("GET /api/models/ada/bert")
    weights = load_file(side.directory / "runs/finetuned/bert-pretrained/seed-0/model/model.safetensors")
    assert any(name.startswith("backbone.encoder") for name in weights)
    reply = side.ask(recipe="predict", argv=["ada/text@main", "texts.tsv", "--output", "answers.tsv"])
    assert reply.answer == 0, reply.err
    header, *answers = (side.directory / "answers.tsv").read_text().splitlines()
    assert header.startswith("label\tp(red)\tp(green)\tp(blue)") and len(answers) == 60
    program = """
import torch
from toolkit.models.series import SeriesForClassification
from toolkit.models.load import checkpoint_config
torch.manual_seed(0)
new = SeriesForClassification.from_backbone("ada/bert", ["up", "down"], pretrained=True, patch_length=8)
answer = [new.config.backbone_config.model_type, checkpoint_config("ada/series").model_type]
"""
    assert side.ask(program=program).answer == ["bert", "toolkit-series"]


def pulled(side: Side, name: str, **order) -> str:
    program = f"""
from toolkit.errors import UserError
from toolkit.models.load import checkpoint_config, load_backbone
try:
    answer = checkpoint_config({name!r}).model_type
    load_backbone({name!r}, "bert")
except UserError as error:
    answer = str(error)
"""
    reply = side.ask(program=program, **order)
    assert reply.err == "", reply.err
    return reply.answer


def test_names_that_cannot_be_pulled_say_why_at_once(side):
    assert side.push().answer == 0
    assert pulled(side, "ada/bert") == "bert"
    assert "ada/none: no such directory, and no such model on the hub, or it is private" in pulled(side, "ada/none")
    assert "ada/bert@v9: no such directory, and the model ada/bert of the hub has no revision 'v9'" in pulled(
        side, "ada/bert@v9")
    side.hub.add_model("ada/private", {"config.json": b"{}"}, private=True)
    assert "or it is private and you are not logged in" in pulled(side, "ada/private", token=None)
    assert "no checkpoint here (config.json is missing)" in pulled(side, "runs/none")
    assert side.hub.requests == []  # a path, though one that is not there
    side.hub.add_model("ada/empty", {"README.md": b"x", "config.json.bak": b"x"})
    assert "ada/empty: no checkpoint here (config.json is missing)" in pulled(side, "ada/empty")
    model = side.directory / "runs/bert/model"
    side.hub.add_model("ada/pickled", {"config.json": (model / "config.json").read_bytes(), "pytorch_model.bin": b"x"})
    assert "ada/pickled: no weights could be loaded" in pulled(side, "ada/pickled")
    assert not [request for request in side.hub.requests if "pytorch_model.bin" in request]
    assert "the hub does not accept your token" in pulled(side, "ada/other", token="hf_" + "x" * 34)


def test_a_hub_in_trouble_gives_way_to_the_cache(side):
    """What was pulled before is used; what was not is told within seconds."""
    assert side.push(repo="ada/kept").answer == 0
    assert pulled(side, "ada/kept") == "bert"
    for fault in (Fault("", status=500, times=99), Fault("", delay=0.5, times=99), Fault("", drop=0, times=99)):
        side.hub.faults[:] = [fault]
        seconds = (0.3, 0.3) if fault.delay else (10, 60)
        assert pulled(side, "ada/kept", seconds=seconds) == "bert"
        message = pulled(side, "ada/never", seconds=seconds)
        assert "ada/never: no such directory, and not at hand from the hub (the hub cannot" in message, fault
        assert "fetch it once with `hf download ada/never`" in message


def test_no_token_and_no_signed_address_was_told(side):
    told = "".join(TOLD) + side.child.log.read_text()
    assert "trying again" in told and "the hub" in side.child.log.read_text()
    for secret in (*side.hub.accounts, "signature=", "SIGNED"):
        assert secret not in told
