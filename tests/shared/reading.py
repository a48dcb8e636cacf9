"""What a result must read like."""

from pathlib import Path

from toolkit.run.results import (
    FILE,
    Results,
    read_results,
)


def means(results: Results) -> dict:
    """(set, size, arm) → values of the metric that arms are compared by; what is of one set alone does not name it."""
    several = len({row.set for row in results.rows}) > 1
    return {(name if several else "", size, arm): [row.metrics[results.metric] for row in rows]
            for (name, size, arm), rows in results.arms().items()}


def reads_alike_without_rows(directory) -> None:
    """What a recipe left before there were rows holds the same figures and verdicts."""
    directory = Path(directory)
    new = read_results(directory)
    (directory / FILE).rename(directory / "kept")
    old = read_results(directory)
    (directory / "kept").rename(directory / FILE)
    assert means(old) == means(new) and (old.metric, old.sizes) == (new.metric, new.sizes)
    assert {verdict.text for verdict in old.verdicts} <= {verdict.text for verdict in new.verdicts}
    assert {(row.arm, row.model, row.start.partition(":")[0]) for row in old.rows if row.model} == {
        (row.arm, row.model, row.start) for row in new.rows if row.model}
