"""Errors of `recsys-rl ope` with the name of the file that they are about."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from recsys_rl.decisions.table import OwnLog, own_ids
from recsys_rl.errors import one_line
from recsys_rl.types import UserError


@contextlib.contextmanager
def errors_of(file: str | None, own: OwnLog | None) -> Iterator[None]:
    """Errors inside the block begin with the name of ``file``, and have the ids of people's ``own`` log."""
    name = one_line(file)
    ids = contextlib.nullcontext() if own is None else own_ids(name, own.items, own.sessions)
    with ids:
        try:
            yield
        except UserError as error:
            text = str(error)
            if text.startswith(name):
                raise
            raise UserError(f"{name}: {text[:1].lower()}{text[1:]}") from error
