"""The bias probe beside a plain loop over tokens; what cannot be scored is counted; what a report says of itself."""

import math
import re

import pandas as pd
import probe_bias as recipe
import pytest
import torch

from toolkit.analysis.bias import CONTROL, Pair, probe_bias, read_pairs, report_path, template_pairs
from toolkit.errors import UserError
from toolkit.run.files import read_json

PAIRS = [Pair("the old man went to the river .", "the old captain went to the river .", "one"),
         Pair("a garden in winter .", "a garden in the long summer night .", "one"),
         Pair("she had a letter for the doctor", "he had a letter for the doctor", "two")]


def shared_tokens(tokenizer, a: str, b: str) -> list[list[int]]:
    """For sentences that differ in one stretch of words: the places of the words at the beginning and end, in either.
    """
    a, b = a.split(), b.split()
    first = next(i for i in range(len(a)) if a[i] != b[i])
    last = next(i for i in range(1, len(a) + 1) if a[-i] != b[-i]) - 1
    places = []
    for words in (a, b):
        start = len(tokenizer.tokenize(" ".join(words[:first])))
        end = len(tokenizer.tokenize(" ".join(words[len(words) - last:])))
        total = len(tokenizer.tokenize(" ".join(words)))
        places.append([*range(1, 1 + start), *range(1 + total - end, 1 + total)])  # after [CLS]
    return places


def test_a_bert_is_scored_as_a_loop_over_shared_tokens_does(bert):  # noqa: F811
    expected = []
    for pair in PAIRS:
        both = [bert.tokenizer(text)["input_ids"] for text in (pair.sentence_a, pair.sentence_b)]
        sums = []
        for ids, places in zip(both, shared_tokens(bert.tokenizer, pair.sentence_a, pair.sentence_b), strict=True):
            total = 0.0
            for place in places:
                hidden = [*ids[:place], bert.tokenizer.mask_token_id, *ids[place + 1:]]
                with torch.inference_mode():
                    total += float(bert.model(torch.tensor([hidden])).logits[0, place].log_softmax(-1)[ids[place]])
            sums.append(total)
        expected.append(sums[0] - sums[1])
    for batch_size in (3, 64):
        report = probe_bias(bert, PAIRS, batch_size)
        one, two = report["categories"]["one"], report["categories"]["two"]
        assert one["mean_difference"] == pytest.approx(sum(expected[:2]) / 2, abs=1e-3)
        assert two["mean_difference"] == pytest.approx(expected[2], abs=1e-3) and two["ci95"] is None
        assert one["n"] == 2 and one["prefers_a"] == sum(value > 0 for value in expected[:2]) / 2
    assert report["pairs"] == 3 and report["split_terms"] >= 1 and "Nangia" in report["method"]
    assert bert.model.get_output_embeddings()._forward_pre_hooks == {}, "the model is left as it was"


def test_a_gpt_is_scored_by_the_likelihood_that_transformers_gives(gpt):  # noqa: F811
    expected = []
    for pair in PAIRS:
        sums = []
        for text in (pair.sentence_a, pair.sentence_b):
            ids = torch.tensor([[0, *gpt.tokenizer(text)["input_ids"]]])
            with torch.inference_mode():
                sums.append(-float(gpt.model(ids, labels=ids).loss) * (ids.shape[1] - 1))
        expected.append(sums[0] - sums[1])
    report = probe_bias(gpt, PAIRS, batch_size=2)
    assert report["categories"]["one"]["mean_difference"] == pytest.approx(sum(expected[:2]) / 2, abs=1e-3)
    assert report["categories"]["two"]["mean_difference"] == pytest.approx(expected[2], abs=1e-3)

    # The shared tokens alone, where the term comes first: what follows it.
    sums = []
    for first in ("she", "he"):
        ids = [0, *gpt.tokenizer(f"{first} had a letter for the doctor")["input_ids"]]
        start = 1 + len(gpt.tokenizer(first)["input_ids"])
        with torch.inference_mode():
            given = gpt.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append([float(given[place - 1, ids[place]]) for place in range(start, len(ids))])
    rest = report["categories"]["two"]["shared_tokens"]["mean_difference"]
    assert rest == pytest.approx(sum(sums[0]) - sum(sums[1]), abs=1e-3) and len(sums[0]) == len(sums[1])


def test_sides_can_be_exchanged(bert):  # noqa: F811
    pairs = template_pairs()[::3]
    there = probe_bias(bert, pairs)
    back = probe_bias(bert, [Pair(pair.sentence_b, pair.sentence_a, pair.category) for pair in pairs])
    assert there["pairs"] == back["pairs"] > 90
    for name, found in there["categories"].items():
        assert back["categories"][name]["mean_difference"] == pytest.approx(-found["mean_difference"], abs=1e-4)
        assert back["categories"][name]["prefers_a"] == pytest.approx(1 - found["prefers_a"])
        assert found["low"] <= found["prefers_a"] <= found["high"] and found["n"] + found["ties"] >= 13
        assert {text for text, _ in found["stand_out"]["a"]} == {
            text for text, _ in back["categories"][name]["stand_out"]["b"]}


def test_a_model_to_which_both_terms_are_the_same_prefers_neither(bert):  # noqa: F811
    first, second = [word for word in ("man", "old", "him", "her", "with", "had")
                     if len(bert.tokenizer.tokenize(word)) == 1][:2]
    pairs = [Pair(f"the {first} and the {word} .", f"the {second} and the {word} .", "all") for word in
             ("river", "sea", "garden", "letter", "street", "house")]
    before = probe_bias(bert, pairs)["categories"]["all"]
    embeddings = bert.model.bert.embeddings.word_embeddings.weight
    first_id, second_id = (bert.tokenizer.convert_tokens_to_ids(word) for word in (first, second))
    kept = embeddings[second_id].detach().clone()
    with torch.no_grad():
        embeddings[second_id] = embeddings[first_id]
    try:
        same = probe_bias(bert, pairs)["categories"]["all"]
    finally:
        with torch.no_grad():
            embeddings[second_id] = kept
    assert before["mean_difference"] != 0 and before["n"] == 6
    assert (same["n"], same["ties"], same["prefers_a"]) == (0, 6, None) and same["mean_difference"] == 0


def test_what_the_tokenizer_does_not_know_is_left_out_and_counted(bert):  # noqa: F811
    pairs = [*PAIRS, Pair("the 漢 went away", "the man went away", "two"), Pair("The sea .", "the sea .", "two")]
    report = probe_bias(bert, pairs)
    assert report["left_out"] == {"unknown_word": 1, "same_tokens": 1} and report["pairs"] == 3
    with pytest.raises(UserError, match="knows the terms of none of the 1 pairs"):
        probe_bias(bert, pairs[3:4])
    with pytest.raises(UserError, match=r"pairs.csv, line 7: has \d+ tokens, but the model has 64 positions"):
        probe_bias(bert, [Pair("the " * 70, "a " * 70, "two", "pairs.csv, line 7")])


def test_the_templates_differ_in_one_word_and_say_what_they_cannot_show(gpt):  # noqa: F811
    pairs = template_pairs()
    assert len(pairs) == len(set(pairs)) == 290
    for pair in pairs:
        a, b = pair.sentence_a.split(), pair.sentence_b.split()
        differing = {x.strip(".").lower() for x, y in zip(a, b, strict=True) if x != y} | {
            y.strip(".").lower() for x, y in zip(a, b, strict=True) if x != y}
        assert len(differing) == 2 and differing == set(re.split(r" / | \(|, ", pair.category.lower())[:2])
        assert pair.sentence_a[0].isupper() and not re.search(r" a [aeiou]| an [^aeiou]", pair.sentence_a)
    report = probe_bias(gpt, pairs)
    share = round(100 * report["categories"][CONTROL]["prefers_a"])
    assert f"control pairs, which name no group, {share} % prefer" in report["cannot_show"]
    assert "whole sentence" in report["cannot_show"]


def test_pairs_are_read_from_tables_and_faults_are_named_by_line(tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("sent_more,sent_less,bias_type\nHe is old.,She is old.,gender\nA b.,A c.,other\n", encoding="utf-8")
    found = read_pairs(file, "sent_more", "sent_less", "bias_type")
    assert [(pair.sentence_a, pair.sentence_b, pair.category) for pair in found] == [
        ("He is old.", "She is old.", "gender"), ("A b.", "A c.", "other")]
    assert {pair.category for pair in read_pairs(file, "sent_more", "sent_less", "")} == {"all"}
    for text, said in (("sentence_a,sentence_b\na,b\n", "category"),
                       ("sentence_a,sentence_b,category\na,b,c\na,,c\n", "3.*sentence_b"),
                       ("sentence_a,sentence_b,category\na,a,c\n", "2.*both sentences are the same"),
                       ("sentence_a,sentence_b,category\n", "no ")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=f"pairs.csv.*{said}"):
            read_pairs(file)
    with pytest.raises(UserError, match="nowhere.csv"):
        read_pairs(tmp_path / "nowhere.csv")


def test_the_report_lies_in_the_run_for_its_card(runs, tmp_path, capsys):  # noqa: F811
    assert report_path(runs / "bert") == report_path(runs / "bert/model") == runs / "bert/bias.json"
    assert report_path(tmp_path) is None and report_path("owner/name") is None
    pd.DataFrame([[pair.sentence_a, pair.sentence_b, pair.category] for pair in PAIRS],
                 columns=["sentence_a", "sentence_b", "category"]).to_csv(tmp_path / "pairs.tsv", sep="\t", index=False)
    recipe.main([str(runs / "bert/model"), "--pairs", str(tmp_path / "pairs.tsv")])
    report = read_json(runs / "bert/bias.json")
    assert "Bias probe of" in (runs / "bert/bias.html").read_text(encoding="utf-8")
    assert set(report) >= {"pairs", "method", "categories", "can_show", "cannot_show"}
    for found in report["categories"].values():
        assert set(found) >= {"prefers_a", "low", "high", "n", "mean_difference"}
        assert all(value is None or math.isfinite(value) for value in found.values() if not isinstance(value, dict))
    assert str(runs) not in (runs / "bert/bias.json").read_text()
    out = capsys.readouterr().out
    assert "It cannot show" in out and "prefer a" in out
    (runs / "bert/bias.json").unlink()
    (runs / "bert/bias.html").unlink()


def test_the_table_fits_a_terminal(bert, capsys):  # noqa: F811
    report = probe_bias(bert, template_pairs()[::9])
    for found in report["categories"].values():  # the longest that each can be
        found |= {"prefers_a": 1.0, "low": 0.93, "high": 1.0, "mean_difference": -12.34, "ci95": 1.23}
    recipe.show(report)
    table = capsys.readouterr().out.split("\n\n")[1]
    assert len(table.splitlines()) == 2 + len(report["categories"]) and max(map(len, table.splitlines())) <= 80
