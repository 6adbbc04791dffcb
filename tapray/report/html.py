"""A page of Markdown as one HTML file that holds its pictures and needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from PIL import Image, ImageSequence

LARGE, WIDTH = 100_000, 1400  # bytes; pixels: of a page of 992 on a screen of fine pixels
_KINDS = {".svg": "image/svg+xml", ".png": "image/png", ".gif": "image/gif"}
_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a;
  background: #fff; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
nav { font-size: 0.9rem; } nav a { margin-right: 1rem; white-space: nowrap; }
a { color: #0072b2; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; } figcaption { font-size: 0.85rem; color: #444; }
code, pre { font: 0.85rem/1.4 ui-monospace, monospace; background: #f4f4f4; }
pre { padding: 0.7rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid #e3e3e3; }
th { vertical-align: bottom; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  table { font-size: 7pt; } th, td { padding: 0.1rem 0.25rem; } th { overflow-wrap: anywhere; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } .wide { overflow: visible; }
  img { max-height: 22cm; } }
@media (max-width: 40rem) { body { padding: 0.6rem; font-size: 15px; } h1 { font-size: 1.5rem; } }
"""


def to_html(title: str, text: str, folders: Sequence[Path]) -> str:
    """Pictures are looked up by name in folders, as SVG where there is one; what is not there is left out.

    Their titles become captions.

    Args:
        text: Markdown with one heading of first rank; its second ranks become the table of contents.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = re.sub(
        r'<p><img src="([^"]+)" alt="([^"]*)"(?: title="([^"]*)")? /></p>',
        lambda m: _picture(m[1], m[2], m[3], folders),
        body,
    )
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    titles = re.findall(r"<h2>(.*?)</h2>", body)
    for number, name in enumerate(titles):
        body = body.replace(f"<h2>{name}</h2>", f'<h2 id="part-{number}">{name}</h2>', 1)
    contents = " ".join(f'<a href="#part-{number}">{name}</a>' for number, name in enumerate(titles))
    body = body.replace("</h1>", f"</h1><nav>{contents}</nav>", 1)
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _picture(name: str, alt: str, title: str | None, folders: Sequence[Path]) -> str:
    drawn = [folder / f"{Path(name).stem}.svg" for folder in folders]
    path = next((path for path in (*drawn, *(folder / name for folder in folders)) if path.is_file()), None)
    if path is None:
        return ""
    kind, data = _encoded(path)
    text = base64.b64encode(data).decode()
    caption = f"<figcaption>{title}</figcaption>" if title else ""
    return f'<figure><img alt="{alt}" src="data:{kind};base64,{text}">{caption}</figure>'


def _encoded(path: Path) -> tuple[str, bytes]:
    """A picture as a browser takes it: large ones of pixels as WebP, no wider than the page shows them."""
    data = path.read_bytes()
    if path.suffix == ".svg" or len(data) < LARGE:
        return _KINDS[path.suffix], data
    with Image.open(path) as opened:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(opened)]
        duration = int(opened.info.get("duration", 0))
    for frame in frames:
        frame.thumbnail((WIDTH, 4 * WIDTH))
    out = io.BytesIO()
    more: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": duration, "loop": 0}
    frames[0].save(out, "WEBP", quality=80, method=4, **(more if len(frames) > 1 else {}))
    return "image/webp", out.getvalue()
