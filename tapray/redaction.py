"""What must not be shown: user names, passwords and tokens within addresses."""

from __future__ import annotations

import re
from typing import Any

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?![/\s])[^\s]*@")
_QUERY = re.compile(r"(?i)([?&][^=\s]*(?:password|passwd|token|secret|user|signature|sig)=)[^&\s]*")
_BUCKETS = ("s3", "gs", "gcs", "az", "abfs", "abfss")  # no user stands there: an @ is of a file's name


def redact(text: str) -> str:
    """`text` without user names, passwords and tokens in its addresses."""
    text = _ADDRESS.sub(lambda found: found[0] if found[1] in _BUCKETS else f"{found[1]}://***@", text)
    return _QUERY.sub(r"\1***", text)


def redacted(value: Any) -> Any:
    """Lists and mappings with every text in them as `redact` leaves it."""
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return redact(value) if isinstance(value, str) else value
