"""The gain picture: pairs of seeds, gains with intervals, verdicts in words; readable whatever it is given."""

import numpy as np
import pytest
from pictures import outside, overlapping, words

from toolkit.metrics.intervals import paired_difference, signed
from toolkit.report.figures.canvas import PAPER, PRETRAINED
from toolkit.report.figures.gains import Gain, GainPanel, gain_figure, gain_table, panels_of
from toolkit.run.results import Row

THREE = Gain("bert", [0.40, 0.43, 0.41], [0.52, 0.53, 0.55])


def lines_of(axes, color: str) -> list[np.ndarray]:
    """x of the lines of more than a point."""
    return [line.get_xdata() for line in axes.lines if line.get_color() == color and len(line.get_xdata()) > 1]


def test_a_share_ends_at_0_and_100_and_dots_at_either_end_are_whole():
    values, _ = gain_figure([GainPanel("a", [Gain("b", [0.0, 0.5, 1.0], [1.0, 1.0, 1.0])])]).axes
    assert values.get_xlim() == (0, 100)
    dots = [found for found in values.collections if len(found.get_offsets()) == 3]
    assert len(dots) == 2 and not any(found.get_clip_on() for found in dots)


def test_the_interval_and_the_verdict_are_those_of_the_pairs():
    figure = gain_figure([GainPanel("a", [THREE])])
    gain = paired_difference([52, 53, 55], [40, 43, 41])
    assert sorted(end for line in lines_of(figure.axes[1], PRETRAINED) for end in line) == pytest.approx(
        [gain.mean - gain.ci95, gain.mean, gain.mean, gain.mean + gain.ci95])
    assert f"{signed(gain)}  real" in words(figure)


@pytest.mark.parametrize("seeds, told", [(1, "+12.0  1 seed: run 3 or more"), (2, "+11.0  2 seeds: run 3 or more")])
def test_so_few_seeds_get_no_interval(seeds, told):
    panel = GainPanel("a", [Gain("bert", THREE.random[:seeds], THREE.pretrained[:seeds])])
    figure = gain_figure([panel])
    assert not lines_of(figure.axes[1], PRETRAINED) and told in words(figure)
    assert gain_table([panel])[0]["half_width"] is None and "run 3 or more" in gain_table([panel])[0]["verdict"]


def test_an_interval_wider_than_the_axis_is_cut_with_an_arrow_and_squashes_no_other():
    figure = gain_figure([GainPanel("a", [THREE, Gain("wild", [0.1, 0.9, 0.5], [0.9, 0.1, 0.52])])])
    axes = figure.axes[1]
    low, high = axes.get_xlim()
    assert high < 40 and all(low <= end <= high for line in lines_of(axes, PRETRAINED) for end in line)
    assert {line.get_marker() for line in axes.lines if line.get_color() == PRETRAINED} >= {"<", ">", "|"}


def test_of_errors_less_is_better_and_gains_are_in_percent_of_the_random_starts():
    panel = GainPanel("mse", [Gain("a", [2.0, 4.0, 2.0], [1.0, 3.0, 1.5])], {"naive": 90.0}, "mse", False, False)
    (row,) = gain_table([panel])
    assert row["gain"] == pytest.approx(np.mean([50, 25, 25])) and row["unit"] == "%" and row["random"] == 8 / 3
    assert gain_figure([panel]).axes[0].get_xlim()[1] < 6  # where a baseline far off is an arrow at the edge


def test_many_models_and_baselines_of_one_value_stay_readable():
    generator = np.random.default_rng(0)
    starts = generator.uniform(0.2, 0.9, (17, 5))
    rows = [Gain(f"a model with a name that is long, number {number}", start, np.clip(start + 0.05, 0, 1))
            for number, start in enumerate(starts)]
    baselines = {f"baseline {name}": 0.5 + 0.001 * place for place, name in enumerate("abcdef")}
    panels = [GainPanel("a set whose name goes on and on " * 4, rows, baselines),
              *(GainPanel(f"set {number}", rows[:2], baselines) for number in range(2))]
    figure = gain_figure(panels)
    assert not overlapping(figure) and not outside(figure)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(names) == 23 and names[-1] == "baseline f"


def test_arms_without_a_pair_are_dots_with_a_mean_and_no_panel_of_gains():
    figure = gain_figure([GainPanel("sets", [Gain("a", [], [0.7, 0.8, 0.9]), Gain("b", [], [0.5])], {"majority": 0.3})])
    assert len(figure.axes) == 1 and not overlapping(figure)
    assert {"80.0 ± 24.8 %", "50.0 %, 1 seed", "30.0 %"} <= set(words(figure))


def test_hollow_is_without_and_filled_is_with():
    random, pretrained = (dots for dots in gain_figure([GainPanel("a", [THREE])]).axes[0].collections
                          if len(dots.get_offsets()) == 3)
    assert random.get_facecolor().tolist() != random.get_edgecolor().tolist()
    assert random.get_offsets()[:, 0].tolist() == pytest.approx([40, 43, 41]) and PAPER == "#fffffe"
    assert pretrained.get_facecolor().tolist() == pretrained.get_edgecolor().tolist()


# --- from rows -----------------------------------------------------------------------------------------------------


def rows_of(arm: str, values, **more) -> list[Row]:
    return [Row("e", arm, seed, {"accuracy": value}, **more) for seed, value in enumerate(values)]


def test_rows_become_pairs_and_baselines():
    rows = [*rows_of("bert, pretrained", [0.6, 0.7], model="bert", start="pretrained", reference="bert, random"),
            *rows_of("bert, random", [0.5, 0.4, 0.9], model="bert", start="random"),  # one seed more, as yet
            *rows_of("tfidf", [0.3, 0.5]), *rows_of("lstm", [0.8, 0.9], parameters=900)]
    (panel,) = panels_of(rows)
    assert panel == GainPanel("", [Gain("bert", [0.5, 0.4], [0.6, 0.7]), Gain("lstm", [], [0.8, 0.9])], {"tfidf": 0.4})


def test_a_panel_for_every_set_and_size_and_other_references_are_named():
    rows = [*rows_of("bert, pretrained: probe", [0.6], model="bert", start="pretrained", set="trec", size="100",
                     reference="bert, random: probe"),
            *rows_of("bert, random: probe", [0.5], model="bert", start="random", set="trec", size="100"),
            *rows_of("identity", [0.5], reference="full", set="forda"), *rows_of("full", [0.6], set="forda")]
    trec, forda = panels_of(rows, sizes="labels")
    assert (trec.title, trec.rows[0].name, trec.hollow) == ("trec, 100 labels", "bert: probe", "random start")
    assert (forda.title, forda.rows, forda.hollow) == ("forda", [Gain("identity", [0.6], [0.5])], "full")
    assert words(gain_figure([forda]))[0:1] and "How far ahead of its reference?" in words(gain_figure([forda]))
