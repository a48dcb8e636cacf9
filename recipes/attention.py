"""Every attention head's map and entropy, for a text or for a series in patches, as one HTML page. Of an
encoder–decoder where it looks in the source to write each word of the target.

    make attention MODEL=runs/bert-5min TEXT="the captain went back to the river"
    make attention MODEL=runs/seq2seq/seed-0 TEXT="the third of May 1999"
    make attention MODEL=runs/gunpoint/bert-pretrained/seed-0 SERIES=GunPoint_TEST.tsv ROW=3

MODEL is a directory, a run's directory or a hub id: a BERT, a GPT-2, a classifier of ours around one, or an
encoder–decoder.
"""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from toolkit import cli, config
from toolkit.errors import UserError
from toolkit.run.files import disk_errors
from toolkit.run.provenance import without_machine_paths
from toolkit.shown import on_one_line, tell

if TYPE_CHECKING:
    from toolkit.analysis.attention import AttentionMaps


@dataclass
class AttentionConfig:
    model: str
    text: str = config.text()
    text_pair: str = config.text()
    """A second text, for a BERT that reads pairs."""
    target: str = config.text()
    """Of an encoder–decoder: what it is to have written. Empty: it writes itself."""
    series: str = ""
    """Instead of a text: a .ts, .tsv, .arff, .csv, .parquet or .npz file of series, which are scaled as those that the
    model learned."""
    row: int = 0
    """Which series of the file, counted from 0."""
    channel: int = 0
    """Which channel, where the model reads each by itself."""
    output: str = ""
    """An .html file. Default: named by the model, below runs/attention."""


def answer_of(maps: "AttentionMaps") -> str:
    """What was predicted, and the head that chooses most sharply what it reads."""
    import numpy as np

    from toolkit.analysis.attention import relative_entropy

    layers, heads, length, _ = maps.weights.shape
    told = [f"{answer.what}: {on_one_line(answer.said)}" for answer in maps.answers]
    if length > 1:
        entropy = relative_entropy(maps)
        layer, head = np.unravel_index(np.nanargmin(entropy), entropy.shape)
        told.append(f"of {layers * heads} heads the sharpest is layer {layer + 1}, head {head + 1}, with "
                    f"{100 * entropy[layer, head]:.0f} % of the entropy of uniform attention")
    return "; ".join(told)


def main(argv: list[str]) -> None:
    settings = config.parse(AttentionConfig, argv, __doc__, ["model"])
    if bool(settings.text) == bool(settings.series):
        raise UserError("Give either --text TEXT or --series FILE, with --row NUMBER.")
    from toolkit.analysis.alignment import text_alignment  # --help waits for none
    from toolkit.analysis.attention import series_attention, text_attention
    from toolkit.data.series.learned import Learned
    from toolkit.data.series.readers import read_values
    from toolkit.models.load import checkpoint_config, model_directory
    from toolkit.report.attention_page import write_attention_page
    from toolkit.report.ending import command, ending

    shape = checkpoint_config(model_directory(settings.model))
    if settings.target and not shape.is_encoder_decoder:
        raise UserError(f"target: only an encoder–decoder writes one, and {settings.model} is a {shape.model_type}. "
                        f"Leave it out.")
    if settings.text and shape.is_encoder_decoder:
        maps = text_alignment(settings.model, settings.text, settings.target)
    elif settings.text:
        maps = text_attention(settings.model, settings.text, settings.text_pair)
    else:
        learned = Learned.of(shape, settings.model)
        data, _ = read_values(settings.series, "mask", note=tell, learned=learned)
        data = replace(data, learned=learned).normalised()
        if not 0 <= settings.row < len(data):
            raise UserError(f"row is {settings.row}; {settings.series} has {len(data)} series, counted from 0.")
        length = data.lengths[settings.row]
        values = data.values[settings.row, :, :length]
        observed = None if data.observed is None else data.observed[settings.row, :, :length]
        maps = series_attention(settings.model, values, observed, settings.channel)
    slug = re.sub(r"[^\w.-]+", "-", without_machine_paths(settings.model)).strip("-.")
    output = settings.output or f"runs/attention/{slug}{'-series' if settings.series else ''}.html"
    with disk_errors(output, "output"):
        write_attention_page(maps, output)
    print(ending(None, command("make app", {"MODEL": settings.model}), answer_of(maps), page=output))


if __name__ == "__main__":
    cli.run(main)
