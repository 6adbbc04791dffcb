"""Movies behind a web server that lists no folders."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upath import UPath

from benchmarks.bad_inputs import FRAMES, ome_zarr, ome_zarr_04, tiff
from tapray.data.movies import open_movie
from tapray.errors import UserError


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files only; a folder is not found."""

    def log_message(self, *_: Any) -> None:
        pass

    def send_head(self) -> Any:
        if Path(self.translate_path(self.path)).is_dir():
            self.send_error(404)
            return None
        return super().send_head()


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of readers that have read enough."""

    def handle_error(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("web")
    tiff(folder / "stack", FRAMES)
    ome_zarr(folder / "new", FRAMES)
    ome_zarr_04(folder / "old", FRAMES)
    with Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["stack.tif", "new.zarr", "old.zarr"])
def test_the_same_frames_as_on_a_disk(address: str, name: str) -> None:
    movie = open_movie(UPath(f"{address}/{name}"))
    assert movie.name == name.partition(".")[0]
    np.testing.assert_array_equal(movie.read(3, 9), FRAMES[3:9])


@pytest.mark.parametrize("name", ["none.tif", "none.zarr", "none.npy", "none"])
def test_what_is_not_there_is_one_line(address: str, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: no such file or folder"):
        open_movie(UPath(f"{address}/{name}"))
