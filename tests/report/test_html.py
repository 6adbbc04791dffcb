"""The page holds all it shows, and a browser shows it without asking anyone."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tapray.report.html import to_html

TEXT = """# All

| a | b |
| ---: | ---: |
| 1 | <script>alert(1)</script> |

## First & foremost

![one](one.png "Red: <b> & more")

![none](none.png)

## Second

```
key: 'value' <b>
```
"""


@pytest.fixture
def page(tmp_path: Path) -> str:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "one.png")
    return to_html("A title & more", TEXT, [tmp_path / "away", tmp_path])


def test_pictures_are_inside_and_what_is_not_there_is_left_out(page: str, tmp_path: Path) -> None:
    (found,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(found) == (tmp_path / "one.png").read_bytes()
    assert "none.png" not in page
    assert page.count("<figcaption>") == 1
    assert "<figcaption>Red: &lt;b&gt; &amp; more</figcaption></figure>" in page
    (tmp_path / "one.svg").write_text("<svg/>")
    assert "data:image/svg+xml" in to_html("", TEXT, [tmp_path])


def test_nothing_of_the_text_is_taken_for_markup(page: str) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<title>A title &amp; more</title>" in page
    assert "key: 'value' &lt;b&gt;" in page


def test_contents_lead_to_the_parts(page: str) -> None:
    assert re.findall(r'<a href="#(part-\d)">([^<]+)</a>', page) == [
        ("part-0", "First &amp; foremost"),
        ("part-1", "Second"),
    ]
    assert page.count('<h2 id="part-') == 2


def test_the_same_text_gives_the_same_page(page: str, tmp_path: Path) -> None:
    assert page == to_html("A title & more", TEXT, [tmp_path])
    assert not re.search(r'(src|href)="https?:', page)


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PAPER = 717  # pixels between the margins of A4
ASK = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
width: document.documentElement.scrollWidth, images: [...document.images].map((i) => i.naturalWidth),
captions: [...document.querySelectorAll("figure > figcaption")].filter((c) => c.innerText).length,
asked: performance.getEntriesByType("resource").filter((r) => !r.name.startsWith("data:")).length
}), "*"))</script>"""
FRAME = """<script>addEventListener("message", (event) => { document.title = event.data })</script>
<iframe src="page.html" width="%d" height="900" style="border: 0"></iframe>"""


def browse(folder: Path, *options: str) -> str:
    """What a browser says."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/user"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=True)
    return ran.stdout


def told(html: str, width: int, folder: Path) -> dict[str, Any]:
    """What a page says of itself in a frame of that width: a window of headless Chromium has 500 at least."""
    (folder / "page.html").write_text(html.replace("</body>", f"{ASK}</body>"))
    (folder / "frame.html").write_text(FRAME % width)
    page = browse(folder, "--virtual-time-budget=5000", "--dump-dom", (folder / "frame.html").as_uri())
    (title,) = re.findall(r"<title>(\{.*?\})</title>", unescape(page), re.DOTALL)
    found: dict[str, Any] = json.loads(title)
    return found


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [360, 500, 1400])
def test_a_browser_shows_it_on_any_screen(tiny_job: Path, tmp_path: Path, width: int) -> None:
    found = told((tiny_job / "report" / "report.html").read_text(), width, tmp_path)
    assert found["width"] <= width  # wide tables scroll in themselves
    assert len(found["images"]) >= 10
    assert min(found["images"]) > 0
    assert found["captions"] == len(found["images"])
    assert found["asked"] == 0


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_it_can_be_printed(tiny_job: Path, tmp_path: Path) -> None:
    html = (tiny_job / "report" / "report.html").read_text()
    assert "@media print" in html
    assert told(html.replace("@media print", "@media all"), PAPER, tmp_path)["width"] <= PAPER
    pdf = tmp_path / "report.pdf"
    browse(tmp_path, f"--print-to-pdf={pdf}", (tiny_job / "report" / "report.html").as_uri())
    assert pdf.read_bytes().startswith(b"%PDF")
    assert pdf.stat().st_size > 100_000  # the pictures are in it
