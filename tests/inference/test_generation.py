"""Models that are asked: continuations beside a loop of our own, blanks beside a plain forward, what is refused."""

import io
import json
import os
import select
import shutil
import subprocess
import sys
import time

import chat
import fill_mask as fill_mask_recipe
import generate as generate_recipe
import pytest
import small
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from toolkit.errors import UserError
from toolkit.inference.conversation import Conversation
from toolkit.inference.generation import (
    LanguageModel,
    continue_text,
    decoding_of,
    fill_mask,
    fill_masks,
    generate,
    open_model,
)

PROMPTS = ["the sea and", "the old captain went back to the river in winter", "a"]


def greedy(opened: LanguageModel, ids: list[int], steps: int) -> list[int]:
    """The likeliest token after all before it, again and again, without a cache."""
    new: list[int] = []
    while len(new) < steps and (not new or new[-1] != 0):
        with torch.inference_mode():
            new.append(int(opened.model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


def test_greedy_is_the_likeliest_token_each_time_whatever_it_is_batched_with(gpt):
    expected = [gpt.tokenizer.decode(greedy(gpt, gpt.tokenizer(prompt)["input_ids"], 12), skip_special_tokens=True)
                for prompt in PROMPTS]
    for batch_size in (1, 2, 8):
        found = generate(gpt, PROMPTS, temperature=0, max_new_tokens=12, batch_size=batch_size)
        assert [each.prompt for each in found] == PROMPTS
        assert [each.text for each in found] == expected
    assert len(set(expected)) == 3, "prompts without effect would prove nothing"


def test_a_seed_gives_a_text_and_leaves_the_global_generator_alone(gpt):
    before = torch.get_rng_state()
    texts = {seed: str(generate(gpt, PROMPTS[0], seed=seed, max_new_tokens=15)[0]) for seed in range(3)}
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(texts.values())) == 3
    assert continue_text(gpt, PROMPTS[0], 15, seed=1) == texts[1]
    several = generate(gpt, PROMPTS[:2], num_return_sequences=3, max_new_tokens=9)
    assert [each.prompt for each in several] == [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3
    assert len({each.text for each in several}) == 6


def test_sampling_from_the_likeliest_alone_is_greedy(gpt):
    def texts(**options):
        return generate(gpt, PROMPTS, max_new_tokens=10, **options)

    expected = texts(temperature=0)
    assert texts(top_k=1, top_p=1.0, seed=3) == expected
    assert texts(top_p=1e-6, seed=4) == expected
    assert texts(temperature=1e-5, top_p=1.0, seed=5) == expected
    assert texts(temperature=3.0, top_p=1.0, seed=5) != expected


def test_as_many_beams_as_tokens_find_the_likeliest_pair(gpt):
    vocabulary, better_than_greedy = len(gpt.tokenizer), 0
    for prompt in ("the sea", "the river and", "winter", "a garden"):
        ids = gpt.tokenizer(prompt)["input_ids"]
        with torch.inference_mode():
            first = gpt.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            second = gpt.model(torch.tensor([[*ids, token] for token in range(vocabulary)])).logits[:, -1]
        total = first[:, None] + second.log_softmax(-1)
        total[0] = -torch.inf  # token 0 ends the text
        best = divmod(int(total.argmax()), vocabulary)
        found = generate(gpt, prompt, num_beams=vocabulary, max_new_tokens=2, length_penalty=9.0)[0]
        assert found.text == gpt.tokenizer.decode(best)
        better_than_greedy += best[0] != int(first.argmax())
    assert better_than_greedy
    short = generate(gpt, PROMPTS[0], num_beams=vocabulary, max_new_tokens=2, length_penalty=-20.0)[0]
    assert (short.text, short.new_tokens, short.stopped) == ("", 1, "end of text")


def test_a_continuation_ends_where_the_positions_do_and_says_so(gpt):
    long = "the " * 60
    count = len(gpt.tokenizer(long)["input_ids"])
    assert 34 < count < 64
    cut, whole = generate(gpt, [long, "the"], temperature=0, max_new_tokens=30)
    assert cut.stopped == "positions" and cut.new_tokens == 64 - count
    assert whole.stopped in ("length", "end of text")
    assert cut.text == gpt.tokenizer.decode(greedy(gpt, gpt.tokenizer(long)["input_ids"], 64 - count))
    with pytest.raises(UserError, match=r"prompt 2: has 1\d\d tokens, but the model has 64 positions"):
        generate(gpt, ["the", "the sea " * 40])


def test_an_end_token_ends_a_text(gpt):
    first = greedy(gpt, gpt.tokenizer(PROMPTS[1])["input_ids"], 1)[0]
    gpt.model.generation_config.eos_token_id = first
    try:
        ended = generate(gpt, PROMPTS[:2], temperature=0, max_new_tokens=5)[1]
    finally:
        gpt.model.generation_config.eos_token_id = 0
    assert (ended.new_tokens, ended.stopped) == (1, "end of text")


def test_an_empty_prompt_begins_a_document(gpt):
    assert generate(gpt, "", temperature=0, max_new_tokens=6)[0].text == gpt.tokenizer.decode(greedy(gpt, [0], 6))


def test_what_is_streamed_is_what_is_returned(gpt, capsys):
    expected = generate(gpt, PROMPTS[0], max_new_tokens=15)
    assert generate(gpt, PROMPTS[0], max_new_tokens=15, stream=True) == expected
    assert capsys.readouterr().out.strip() == str(expected[0]).strip()
    with pytest.raises(UserError, match="Only one continuation of one prompt"):
        generate(gpt, PROMPTS, stream=True)


@pytest.mark.parametrize(("options", "said"), [
    ({"max_new_tokens": 0}, "max_new_tokens is 0"), ({"temperature": -1}, "temperature is -1"),
    ({"top_p": 0}, "top_p 0"), ({"length_penalty": 2}, "only beam search uses"), ({"batch_size": 0}, "batch_size is 0"),
    ({"temperature": 0, "num_return_sequences": 2}, "greedy decoding can give only 1"),
    ({"num_beams": 2, "num_return_sequences": 3}, "2 beams can give only 2")], ids=lambda value: str(value)[:40])
def test_settings_that_make_no_sense_are_refused(gpt, options, said):
    with pytest.raises(UserError, match=said):
        generate(gpt, "the", **options)


def test_blanks_are_filled_as_a_plain_forward_does(runs, bert):
    texts = ["the [MASK] went back to the river.", "the old [MASK] of the [MASK]."]
    model = AutoModelForMaskedLM.from_pretrained(runs / "bert/model").eval()
    for text, masks in zip(texts, fill_masks(bert, texts, 4), strict=True):
        batch = bert.tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            probability = model(**batch).logits[0].softmax(-1)
        places = (batch["input_ids"][0] == bert.tokenizer.mask_token_id).nonzero().flatten().tolist()
        assert len(masks) == len(places) == text.count("[MASK]")
        for place, guesses in zip(places, masks, strict=True):
            best = probability[place].topk(4)
            assert [token for token, _ in guesses] == bert.tokenizer.convert_ids_to_tokens(best.indices.tolist())
            assert [value for _, value in guesses] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert [token for token, _ in fill_mask(str(runs / "bert/model"), texts[1], 4)] == [
        token for token, _ in fill_masks(bert, texts, 4)[1][0]]
    for text, said in (("no blank", r"holds no \[MASK\]"), ("[MASK] the sea " * 30, "tokens, but the model has 64")):
        with pytest.raises(UserError, match=said):
            fill_mask(bert, text)
    with pytest.raises(UserError, match="top_k is 0"):
        fill_mask(bert, texts[0], 0)


def test_a_model_that_cannot_be_asked_so_is_told_apart(runs, tmp_path, monkeypatch):
    for name, kind, said in (("bert", "causal", r"BertForPreTraining, not a model that continues.*fill_mask\.py"),
                             ("gpt", "masked", r"GPT2LMHeadModel, not a model that fills blanks.*generate\.py")):
        with pytest.raises(UserError, match=said):
            open_model(runs / name, kind)
    assert (open_model(runs / "bert").kind, open_model(runs / "gpt/model").kind) == ("masked", "causal")
    with pytest.raises(UserError, match="holds 2 models; name one: .*bert/model, .*/model"):
        open_model(runs)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="has no model yet"):
        open_model(tmp_path / "new")
    for nothing in (tmp_path / "nowhere", tmp_path, "no-such-model"):
        with pytest.raises(UserError, match="no checkpoint here"):
            open_model(nothing)
    assert open_model(runs / "gpt").name == "gpt", "no path of this machine is told"
    monkeypatch.setattr("toolkit.hub._fetched", lambda repository, revision: runs / "gpt/model")
    assert open_model("owner/name@v1").name == "owner/name@v1"


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda weights: {**weights, "transformer.wpe.weight": weights["transformer.wpe.weight"] * torch.nan},
     "transformer.wpe.weight are no finite numbers"),
    (lambda weights: {key: value for key, value in weights.items() if "h.1.mlp.c_fc.bias" not in key},
     "lacks 1 weights of a GPT2LMHeadModel, such as transformer.h.1.mlp.c_fc.bias"), (None, "cannot be loaded")],
    ids=["nan", "missing", "cut short"])
def test_damaged_weights_are_refused(runs, tmp_path, spoil, said):
    shutil.copytree(runs / "gpt/model", tmp_path / "model")
    file = tmp_path / "model/model.safetensors"
    if spoil is None:
        file.write_bytes(file.read_bytes()[:-100])
    else:
        save_file(spoil(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=said):
        open_model(tmp_path / "model")


def test_a_conversation_goes_on_with_its_last_tokens(gpt):
    talk = Conversation(gpt, max_new_tokens=20, temperature=0)
    said: list[int] = []
    for turn, line in enumerate(("the sea", "and the river", "a garden in winter", "the captain")):
        said += gpt.tokenizer(("\n" if turn else "") + line)["input_ids"]
        expected = greedy(gpt, said[-44:], 20)
        assert talk.say(line) == gpt.tokenizer.decode(expected, skip_special_tokens=True)
        said += expected
    assert talk.forgotten == len(said) - 44 > 0
    talk.reset()
    assert talk.forgotten == 0
    first = gpt.tokenizer("the sea")["input_ids"]
    assert talk.say("the sea") == gpt.tokenizer.decode(greedy(gpt, first, 20), skip_special_tokens=True)
    with pytest.raises(UserError, match="max_new_tokens is 64, but the model has 64 positions"):
        Conversation(gpt, max_new_tokens=64)


def test_chat_through_a_pipe(runs, gpt, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("the sea\n\n/reset\nthe sea\n/help\nand\n" + "the river\n" * 3))
    chat.main([str(runs / "gpt"), "--temperature", "0", "--max_new_tokens", "20"])
    out = capsys.readouterr().out
    answer = str(generate(gpt, "the sea", temperature=0, max_new_tokens=20)[0]).strip()
    assert out.count(answer) == 2, "after /reset the same"
    assert "(begins anew)" in out and "/quit ends" in out and out.count("it sees the last 44 tokens alone") == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("/quit\nthe sea\n"))
    chat.main([str(runs / "gpt")])
    assert capsys.readouterr().out == ""


def test_an_answer_that_is_broken_off_leaves_no_trace(runs, monkeypatch, capsys):
    answers = []

    def interrupted(*args):
        answers.append(args)
        if len(answers) == 2:
            raise KeyboardInterrupt
        return [[5, 6, 7]]

    monkeypatch.setattr("toolkit.inference.conversation.continue_rows", interrupted)
    monkeypatch.setattr("sys.stdin", io.StringIO("the sea\nthe river\nwinter\n"))
    chat.main([str(runs / "gpt"), "--max_new_tokens", "20"])
    assert "the river (broken off; not kept)" in capsys.readouterr().out
    tokenizer = open_model(runs / "gpt").tokenizer
    assert answers[2][1] == [[*tokenizer("the sea")["input_ids"], 5, 6, 7, *tokenizer("\nwinter")["input_ids"]]]


@pytest.mark.slow
def test_chat_in_a_terminal_ends_with_control_d(runs):
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "recipes/chat.py", str(runs / "gpt"), "--max_new_tokens", "30"],
                               stdin=theirs, stdout=theirs, stderr=theirs, cwd=small.ROOT, start_new_session=True)
    os.close(theirs)

    def until(text: str) -> str:
        seen, end = "", time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < end, seen
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 4096).decode(errors="replace")
        return seen

    until("> ")
    os.write(ours, b"the sea\n")
    until("\n> ")
    os.write(ours, b"/reset\n")
    assert "begins anew" in until("\n> ")
    os.write(ours, b"\x04")
    assert process.wait(20) == 0
    os.close(ours)


def test_the_recipes_ask_files_and_write_files(runs, gpt, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    model = str(runs / "gpt")
    generate_recipe.main([model, "--prompts", str(tmp_path / "prompts.txt"), "--num_beams", "2", "--max_new_tokens",
                          "5", "--output", str(tmp_path / "answers.jsonl")])
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = generate(gpt, PROMPTS, num_beams=2, max_new_tokens=5)
    assert [line["text"] for line in lines] == [each.text for each in expected]
    capsys.readouterr()
    generate_recipe.main([model, "--prompt", "the " * 60, "--max_new_tokens", "30"])
    told = capsys.readouterr()
    assert "1 of 1 ended before max_new_tokens: the model has 64 positions" in told.err
    assert told.out.startswith("the the")
    fill_mask_recipe.main([str(runs / "bert"), "--text", "the [MASK] of the [MASK].", "--top_k", "2"])
    assert [line.count("%") for line in capsys.readouterr().out.splitlines()] == [0, 2, 2]
    for main, arguments, said in (
            (generate_recipe.main, [model], "either --prompt"),
            (generate_recipe.main, [model, "--prompt", "a", "--output", "x.txt"], "must end in .jsonl"),
            (generate_recipe.main, [model, "--prompts", str(tmp_path / "none.txt")], "none.txt"),
            (fill_mask_recipe.main, [str(runs / "bert")], "either --text")):
        with pytest.raises(UserError, match=said):
            main(arguments)


def test_a_row_of_a_table_that_is_refused_is_named_and_the_table_told_of(runs, tmp_path, capsys):
    """Without which nobody sees that a separator was taken for another."""
    (tmp_path / "a.csv").write_text(f"text;n\nthe [MASK];1,5\n{'the gate ' * 99};2,5\n")
    for recipe, kind, option, said in ((generate_recipe, "gpt", "--prompts", "has"),
                                       (fill_mask_recipe, "bert", "--texts", "holds no")):
        with pytest.raises(UserError, match=rf"a\.csv, line 3: {said} "):
            recipe.main([str(runs / kind), option, str(tmp_path / "a.csv")])
        assert "a.csv: cells are parted by semicolons" in capsys.readouterr().err


def test_plain_transformers_gives_the_same_text(runs, gpt):
    plain = AutoModelForCausalLM.from_pretrained(runs / "gpt/model").eval()
    batch = gpt.tokenizer(PROMPTS[1], return_tensors="pt")
    output = plain.generate(**batch, max_new_tokens=10, do_sample=False, pad_token_id=0)
    assert gpt.tokenizer.decode(output[0], skip_special_tokens=True) == str(
        generate(gpt, PROMPTS[1], temperature=0, max_new_tokens=10)[0])


@pytest.mark.parametrize("options", [
    {"repetition_penalty": 1.4}, {"repetition_penalty": 0.7, "no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2, "num_beams": 3}, {"repetition_penalty": 3.0, "temperature": 0.8}], ids=str)
def test_what_looks_back_is_transformers_own_whatever_a_prompt_is_batched_with(runs, gpt, options):
    plain = AutoModelForCausalLM.from_pretrained(runs / "gpt/model").eval()
    settings = {"temperature": 0, "top_p": 1.0, **options}
    samples = settings["temperature"] > 0
    how = {key: value for key, value in options.items() if key != "temperature"}
    how |= {"do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 1.0} if samples else {"do_sample": False}
    prompts = PROMPTS[:1] if samples else PROMPTS
    expected = []
    for prompt in prompts:
        torch.manual_seed(4)
        ids = gpt.tokenizer(prompt, return_tensors="pt")
        output = plain.generate(**ids, max_new_tokens=20, pad_token_id=0, **how)[0]
        expected.append(gpt.tokenizer.decode(output, skip_special_tokens=True))
    found = generate(gpt, prompts, max_new_tokens=20, seed=4, **settings)
    assert [str(each) for each in found] == expected
    without = generate(gpt, prompts, max_new_tokens=20, seed=4, temperature=settings["temperature"], top_p=1.0,
                       num_beams=options.get("num_beams", 1))
    assert [str(each) for each in without] != expected, "an option without effect would prove nothing"


def test_a_stop_string_ends_a_text_and_stays_in_it(runs, gpt):
    plain = AutoModelForCausalLM.from_pretrained(runs / "gpt/model").eval()
    whole = generate(gpt, PROMPTS, temperature=0, max_new_tokens=20)
    written = whole[0].text
    cut = next(written[at:at + 3] for at in range(4, len(written)) if "\ufffd" not in written[at:at + 3])
    found = generate(gpt, PROMPTS, temperature=0, max_new_tokens=20, stop_strings=["unheard of", cut])
    for prompt, one in zip(PROMPTS, found, strict=True):
        ids = gpt.tokenizer(prompt, return_tensors="pt")
        output = plain.generate(**ids, max_new_tokens=20, do_sample=False, pad_token_id=0, stop_strings=[cut],
                                tokenizer=gpt.tokenizer)[0]
        assert str(one) == gpt.tokenizer.decode(output, skip_special_tokens=True)
    assert found[0].stopped == "stop string" and found[0].new_tokens < whole[0].new_tokens
    assert whole[0].text.startswith(found[0].text) and cut in found[0].text
    # Rows of one length are continued together; what fills the rows that have ended is not theirs.
    together = generate(gpt, [PROMPTS[0]] * 2 + [PROMPTS[0][:-3] + "but"], temperature=0, max_new_tokens=20,
                        stop_strings=cut)
    assert together[0] == together[1] == found[0]
    beams = generate(gpt, PROMPTS[:1], num_beams=3, num_return_sequences=2, max_new_tokens=20, stop_strings=cut)
    assert all(cut in each.text for each in beams if each.stopped == "stop string")
    talk = Conversation(gpt, max_new_tokens=20, temperature=0, stop_strings=cut)
    assert talk.say(PROMPTS[0]) == found[0].text


@pytest.mark.parametrize(("options", "said"), [
    ({"repetition_penalty": 0}, "repetition_penalty is 0"), ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size -1"),
    ({"stop_strings": [""]}, "holds '', which the model never writes")], ids=str)
def test_settings_of_repetition_that_make_no_sense_are_refused(gpt, options, said):
    with pytest.raises(UserError, match=said):
        generate(gpt, "the", **options)


def test_a_stop_string_that_the_tokenizer_cannot_write_is_refused(gpt, wordpiece):
    opened = LanguageModel("a GPT", "causal", gpt.model, wordpiece)
    for text, read in (("\n", "''"), ("The", "'the'")):  # blanks are none of its tokens, nor are capitals
        with pytest.raises(UserError, match=f"never writes: its tokenizer reads it as {read}"):
            decoding_of(opened, 5, 0.8, 0, 0.95, stop_strings=text)
