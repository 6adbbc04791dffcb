"""Movie formats: each a file of its own, told apart in this order."""

from tapray.data.formats import folder, ngff, npy, tiff
from tapray.data.formats.base import Format

FORMATS: dict[str, Format] = {
    "ome_zarr": ngff.FORMAT,
    "folder": folder.FORMAT,
    "tiff": tiff.FORMAT,
    "npy": npy.FORMAT,
}
