"""The one error a user can cause: printed as a single line, without a traceback."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

from tapray.redaction import redact

# What libraries and their decoders raise on damaged bytes; imagecodecs' own errors are RuntimeErrors.
_DAMAGE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    EOFError,
    SyntaxError,  # Pillow and NumPy, of broken headers
    TokenError,
    ImportError,  # fsspec, where the package of a file system is not installed
    struct.error,
    zlib.error,
)


class UserError(Exception):
    """A fault in what the user gave: says what is wrong, where, and what to do.

    The command line prints the message as one line and exits with status 2.
    """

    def __init__(self, what: str, *, where: object = "", todo: str = "") -> None:
        message = f"{where}: {what}" if str(where) else what
        self.message = redact(" ".join(f"{message}{f'; {todo}' if todo else ''}".split()))
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message  # and not of `args`, to which Ray Data adds advice of its own


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its kind if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def damage(file: Path, what: str) -> Iterator[None]:
    """Turns what a library raises within the block into one line that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError("no such file or folder", where=file) from error
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, _DAMAGE) and "://" not in str(file):  # an address may raise anything
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"not a readable {what}, or damaged ({reason})", where=file) from error
