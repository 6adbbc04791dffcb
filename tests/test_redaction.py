"""Passwords and tokens in addresses are not shown."""

from __future__ import annotations

import pytest

from tapray.errors import UserError
from tapray.redaction import redact, redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hush@db:5432/x", "postgresql://***@db:5432/x"),
        ("no https://me:h/u@sh@host/a here", "no https://***@host/a here"),
        ("https://hush@host", "https://***@host"),
        ("postgresql://db/x?user=me&password=hush&a=1", "postgresql://db/x?user=***&password=***&a=1"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("http://host:5000/x", "http://host:5000/x"),
        ("s3://bucket/movie@37C.tif", "s3://bucket/movie@37C.tif"),
        ("https://store/m.tif?X-Amz-Signature=hush&a=1", "https://store/m.tif?X-Amz-Signature=***&a=1"),
    ],
)
def test_redact(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_every_text_of_a_mapping_is_redacted() -> None:
    given = {"movies": [{"path": "https://me:hush@host/m.tif", "plane": 1}], "name": "x"}
    assert redacted(given) == {"movies": [{"path": "https://***@host/m.tif", "plane": 1}], "name": "x"}


def test_an_error_shows_no_password() -> None:
    error = UserError("no such file", where="https://me:hush@host/m.tif", todo="look")
    assert str(error) == "https://***@host/m.tif: no such file; look"
