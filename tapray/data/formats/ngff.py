"""OME-Zarr 0.4 and 0.5 (ngff.openmicroscopy.org), on a local disk or any file system of fsspec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.errors import ContainsArrayError, GroupNotFoundError
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from tapray.data.formats.base import Format, Header, Index, micrometres, seconds
from tapray.errors import UserError, damage
from tapray.locations import is_remote

_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


class _Axis(BaseModel):
    name: str
    type: str = ""
    unit: str | None = None


class _Transformation(BaseModel):
    type: str
    scale: list[float] = []


class _Dataset(BaseModel):
    path: str
    transformations: list[_Transformation] = Field([], alias="coordinateTransformations")


class _Multiscale(BaseModel):
    """What is used of the metadata of an image: full resolution comes first."""

    axes: list[_Axis]
    datasets: list[_Dataset] = Field(min_length=1)


def _detect(path: Path) -> bool:
    # Behind http(s) a folder is not seen, and its name has to do.
    by_name = is_remote(path) and path.suffix.lower() == ".zarr"
    return by_name or any((path / name).is_file() for name in _MARKS)


class _Chunks(WrapperStore[Store]):
    """A store that refuses chunks of blosc which are cut short: the decoder would read beyond their end."""

    blosc = False  # the array's codec, once it is known

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        if self.blosc and value is not None and byte_range is None:
            told = int.from_bytes(value[12:16].to_bytes(), "little")  # blosc: the size of all, at byte 12
            if len(value) != told:
                raise ValueError(f"chunk {key} has {len(value)} bytes, not {told}")
        return value


def _group(path: Path) -> zarr.Group:
    store: Store
    if is_remote(path):
        options = getattr(path, "storage_options", None)
        store = FsspecStore.from_url(str(path), options, read_only=True)
    else:
        store = LocalStore(str(path), read_only=True)
    try:
        return zarr.open_group(_Chunks(store), mode="r")
    except (ContainsArrayError, GroupNotFoundError) as error:
        if not isinstance(error, ContainsArrayError) and not (path / ".zarray").is_file():
            raise
        todo = "give the path of the image that it belongs to"
        raise UserError("is a bare Zarr array, not an OME-Zarr image", where=path, todo=todo) from None


def _image(path: Path) -> tuple[_Multiscale, zarr.Array[Any]]:
    """The metadata of an image and its array of full resolution."""
    group = _group(path)
    attributes: dict[str, Any] = dict(group.attrs)
    told = attributes.get("ome", attributes)  # 0.5 and 0.4
    if not isinstance(told, dict) or not told.get("multiscales"):
        parts = [name for name in ("plate", "well", "bioformats2raw.layout") if name in (told or {})]
        what = f"is an OME-Zarr {parts[0]}, not an image" if parts else "holds no OME-Zarr image (0.4 or 0.5)"
        inside = ", ".join(sorted(name for name, _ in group.groups())[:4])
        raise UserError(what, where=path, todo=f"give the path of one image; it holds {inside or 'none'}")
    image = _Multiscale.model_validate(told["multiscales"][0])
    array = group[image.datasets[0].path]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{image.datasets[0].path} is not an array")
    if isinstance(array.store, _Chunks):
        blosc = any("blosc" in type(codec).__name__.lower() for codec in array.compressors)
        array.store.blosc = blosc and array.shards is None  # shards end with an index that is checked
    return image, array


def _header(path: Path) -> Header:
    with damage(path, "OME-Zarr image"):
        image, array = _image(path)
        axes = "".join(axis.name[:1].upper() or "Q" for axis in image.axes)
        if len(axes) != array.ndim:
            raise ValueError(f"axes {axes} for an array of shape {array.shape}")
        scales = (t.scale for t in image.datasets[0].transformations if t.type == "scale")
        scale = dict(zip(axes, next(scales, []), strict=False))
        units = {letter: axis.unit for letter, axis in zip(axes, image.axes, strict=True)}
        pixel_size = micrometres(scale.get("X"), units.get("X"))
        interval = seconds(scale.get("T"), units.get("T"))
        dtype = np.dtype(array.dtype).newbyteorder("=")
        return Header(axes, tuple(array.shape), dtype, (), pixel_size, interval)


def _read(path: Path, header: Header, index: Index) -> NDArray[Any]:
    with damage(path, "OME-Zarr image"):
        _, array = _image(path)
        pixels = np.asarray(array[index])
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


FORMAT = Format(_detect, _header, _read)
