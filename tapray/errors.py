"""The one error a user can cause: printed as a single line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A fault in what the user gave: says what is wrong, where, and what to do.

    The command line prints the message as one line and exits with status 2.
    """

    def __init__(self, what: str, *, where: object = "", todo: str = "") -> None:
        message = f"{where}: {what}" if str(where) else what
        self.message = " ".join(f"{message}{f'; {todo}' if todo else ''}".split())
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message  # and not of `args`, to which Ray Data adds advice of its own
