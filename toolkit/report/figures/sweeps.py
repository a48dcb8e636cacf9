"""Settings of one pretraining: a row a setting, the seeds of the default and its own in pairs, what it changes.

    save_figure(sweep_figure(read_results("runs/sweep"), "my sweep"), "sweep.png")
"""

from dataclasses import replace

from matplotlib.figure import Figure

from toolkit.report.figures.gains import GainPanel, gain_figure, panels_of
from toolkit.run.results import Results

AXIS = "validation loss (nats a token)"


def sweep_panels(results: Results) -> list[GainPanel]:
    """A panel for what settings are compared by and, where there are probes, one for theirs. Each setting stands beside
    its reference; in sweeps of earlier versions, whose rows have none, beside the first.
    """
    default = next((row.reference for row in results.rows if row.reference), results.rows[0].arm)
    rows = [replace(row, reference="" if row.arm == default else default, model="model") for row in results.rows]
    words = results.metric.replace("_", " ").replace("mlm", "masked LM")
    told = {"hollow": "default", "filled": "setting"}
    panels = [replace(panel, metric="loss", share=False, higher_is_better=False, axis=AXIS,
                      title=f"{words}; default: {default}", **told) for panel in panels_of(rows, results.metric)]
    if all("probe" in row.metrics for row in rows):
        panels += [replace(panel, metric="probe", share=True, axis="accuracy of frozen probes (%)",
                           title=f"frozen probes; default: {default}", **told) for panel in panels_of(rows, "probe")]
    return [replace(panel, rows=sorted(panel.rows, key=lambda row: sum(row.pretrained) / len(row.pretrained),
                                       reverse=panel.higher_is_better)) for panel in panels]


def sweep_figure(results: Results, title: str) -> Figure:
    """Every setting's seeds beside the default's, the difference with its interval, and the verdict."""
    return gain_figure(sweep_panels(results), title)
