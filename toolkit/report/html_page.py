"""An HTML page that needs nothing beside it: one frame and one style for all of ours."""

from collections.abc import Sequence
from pathlib import Path

from toolkit.run.files import write_atomic
from toolkit.shown import in_html

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #e5e7eb }
img { max-width: 100% } pre { overflow-x: auto; font-size: 13px } .soft { color: #6b7280 } .scroll { overflow-x: auto }
table { border-collapse: collapse; margin: .8rem 0 }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #f3f4f6;
         font-size: 14px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
td.number, th.number { text-align: right }
"""


def frame(title: str, body: str, style: str = "") -> str:
    """A whole page. style: rules of its own, after those of all pages."""
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{in_html(title)}</title>'
            f"<style>{_STYLE}{style}</style></head><body><h1>{in_html(title)}</h1>{body}</body></html>")


def write_sections(title: str, sections: Sequence[tuple[str, str]], path: str | Path, style: str = "") -> None:
    """A page of headings, each with its HTML."""
    body = "".join(f"<h2>{in_html(heading)}</h2>{content}" for heading, content in sections)
    write_atomic(path, frame(title, body, style))
