"""The letters of a picture: texts are drawn as they are written, in a font that has them."""

import functools
import warnings

from matplotlib import font_manager, ticker
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from toolkit.shown import in_picture

_told: set[str] = set()


def write_literally(figure: Figure) -> None:
    """Dollars are no mathematics but in the numbers of an axis; letters that the font lacks are taken from another."""
    numbers = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_ticklabels()
            if isinstance(axis.get_major_formatter(), (ticker.FixedFormatter, ticker.FuncFormatter)):
                axis.set_ticklabels([_literal(label.get_text()) for label in labels], parse_math=False)
            numbers |= {*labels, *axis.get_ticklabels(which="both")}
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    for text in texts:
        if text not in numbers:
            text.set(text=_literal(text.get_text()), parse_math=False)
    lacking = frozenset(character for text in texts for character in text.get_text()) - _letters_of_the_default()
    fonts = [name for name in (_font_with(character) for character in sorted(lacking)) if name]
    if fonts:
        for text in texts:
            text.set_fontfamily([*dict.fromkeys([*text.get_fontfamily(), *fonts])])
    without = "".join(character for character in sorted(lacking) if character > " " and _font_with(character) is None)
    if without:
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        if not set(without) <= _told:
            _told.update(without)
            print(f"pictures: no font of this machine has {without[:10]}{' …' if len(without) > 10 else ''}; boxes "
                  f"stand in their place. Install one that has, for instance Noto Sans.")


def _literal(text: str) -> str:
    return "\n".join(in_picture(line) for line in text.split("\n"))


@functools.cache
def _letters_of_the_default() -> frozenset[str]:
    return _letters(font_manager.findfont(font_manager.FontProperties()))


def _letters(path: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(path).get_charmap())) | {"\n"}


@functools.cache
def _font_with(character: str) -> str | None:
    """Name of the first installed font, by name, that has it; one that has boxes for everything is none."""
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: entry.name):
        try:
            if "Last Resort" not in entry.name and character in _letters_at(entry.fname):
                return entry.name
        except (OSError, RuntimeError):  # a font that is broken, or gone since matplotlib listed it
            continue
    return None


_letters_at = functools.lru_cache(maxsize=512)(_letters)
