"""Learning curves by number of labels, from rows as comparisons leave them."""

import numpy as np
from pictures import outside, overlapping, words

from toolkit.report.figures.canvas import OKABE_ITO
from toolkit.report.figures.learning_curves import DASHED, SOLID, learning_curves_figure
from toolkit.run.results import Row


def rows_of(seeds: int = 3, sets=("trec",), sizes=("100", "400", "all"), models=("bert", "gpt")) -> list[Row]:
    generator = np.random.default_rng(0)
    rows = []
    for name in sets:
        for size in sizes:
            for seed in range(seeds):
                def row(arm, value, name=name, size=size, seed=seed, **more):
                    rows.append(Row("t", arm, seed, {"accuracy": float(value)}, name, size, **more))

                row("TF-IDF", generator.uniform(0.6, 0.7))
                for model in models:
                    for kind in ("probe", "tuned"):
                        row(f"{model}, random: {kind}", generator.uniform(0.6, 0.62), model=model, start="random")
                        row(f"{model}, pretrained: {kind}", generator.uniform(0.61, 0.63), model=model,
                            start="pretrained", reference=f"{model}, random: {kind}")
    return rows


def curves(axes) -> dict:
    """Lines of a curve a size, by colour, marker and line."""
    return {(line.get_color(), line.get_marker(), line.get_linestyle()): line for line in axes.lines
            if len(line.get_xdata()) == 3}


def test_axes_are_logarithmic_and_a_share_ends_at_0_and_100():
    above, below = learning_curves_figure(rows_of()).axes[:2]
    assert above.get_ylim() == (0, 100)
    assert above.get_xscale() == below.get_xscale() == "log" and above.get_xlim() == below.get_xlim()
    assert [label.get_text() for label in below.get_xticklabels()] == ["100", "400", "all"]


def test_a_model_has_one_colour_solid_where_it_is_pretrained_and_dashed_where_not():
    lines = curves(learning_curves_figure(rows_of()).axes[0])
    models = [key for key in lines if key[0] in OKABE_ITO]
    assert {key[0] for key in models} == set(OKABE_ITO[:2]) and len(models) == 8
    dashed = [line for line in lines.values() if line._unscaled_dash_pattern[1] == DASHED[1]]
    assert len(dashed) == 4 and all(line.get_markerfacecolor() != line.get_color() for line in dashed)
    assert len([key for key in models if key[2] == SOLID]) == 4


def test_one_set_has_no_mean_of_sets_and_several_have():
    assert not any("mean of all" in text for text in words(learning_curves_figure(rows_of())))
    figure = learning_curves_figure(rows_of(sets=("trec", "sst2")))
    assert "mean of all sets" in words(figure)


def test_names_stand_beside_their_curves_and_never_on_each_other():
    # Eight arms within three points of accuracy, and three panels.
    figure = learning_curves_figure(rows_of(sets=("trec", "sst2")), all_labels={"trec": 5452})
    assert not overlapping(figure) and not outside(figure)
    assert "all, 5,452" in words(figure) and words(figure).count("gpt, random: tuned") == 3


def test_so_few_seeds_get_no_bars_and_are_told():
    def bars(figure):
        return [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]

    two = learning_curves_figure(rows_of(seeds=2))
    assert not bars(two) and any("2 seeds: run 3 or more" in text for text in words(two))
    assert len(bars(learning_curves_figure(rows_of(seeds=3)))) == 27  # nine arms at three sizes


def test_without_pairs_there_is_no_panel_of_gains():
    rows = [row for row in rows_of() if row.start != "random"]
    alone = learning_curves_figure(rows)
    assert [axes.get_visible() for axes in alone.axes] == [True]
    assert alone.get_figheight() < learning_curves_figure(rows_of()).get_figheight() - 1  # nor room for one
