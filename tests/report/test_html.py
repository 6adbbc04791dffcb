"""The page holds all it shows, and a browser shows it without asking anyone."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from tapray.report.html import to_html

TEXT = """# All

| a | b |
| ---: | ---: |
| 1 | <script>alert(1)</script> |

## First & foremost

![one](one.png)

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
ASK = """<script>addEventListener("load", () => { document.title = JSON.stringify({
width: document.documentElement.scrollWidth, images: [...document.images].map((i) => i.naturalWidth),
asked: performance.getEntriesByType("resource").filter((r) => !r.name.startsWith("data:")).length
}) })</script>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("width", [500, 1400])  # headless Chromium opens no narrower window
def test_a_browser_shows_it_on_any_screen(tiny_job: Path, tmp_path: Path, width: int) -> None:
    page = tmp_path / "page.html"
    page.write_text((tiny_job / "report" / "report.html").read_text().replace("</body>", f"{ASK}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user"]
    options += [f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom"]
    command = [str(BROWSER), *options, page.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    (title,) = re.findall(r"<title>(\{.*?\})</title>", unescape(ran.stdout), re.DOTALL)
    told = json.loads(title)
    assert told["width"] <= width  # wide tables scroll in themselves
    assert len(told["images"]) >= 10
    assert min(told["images"]) > 0
    assert told["asked"] == 0
