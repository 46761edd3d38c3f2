"""Write files so that a reader never sees half a file, and read the small files that people name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from recsys_rl.errors import UserError, error_text, one_line

LARGEST = 64_000_000  # bytes; a list of ids or a file of settings is far smaller


def read_text(path: str | Path, option: str, kind: str, encoding: str = "utf-8") -> str:
    """The text of the file at ``path``, which ``option`` names; ``kind`` is what it should be, "a TOML file".

    Raises UserError if it can't be read as text, has more than LARGEST bytes, or is not a regular file:
    reading a device or a pipe may never end.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{option} {path} is not a regular file, but a device or a pipe: give {kind}.")
        if path.is_file() and path.stat().st_size > LARGEST:
            raise UserError(f"{option} {path} has more than {LARGEST:,} bytes: give {kind}.")
        return path.read_text(encoding=encoding)
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {path} can't be read ({error_text(error)}): give {kind}.") from error


def check_writable(path: Path, option: str, read: Iterable[str | None] = ()) -> None:
    """Raise UserError, before the work begins, if ``write_text`` can't write to ``path``.

    ``read``: the paths that are read, which a result must not replace.
    """
    if any(given is not None and path.resolve() == Path(given).resolve() for given in read):
        raise UserError(f"{option} {path} is a file that is read: give another name.")
    folder = path.parent
    try:
        _check_regular(path, f"{option} {path}")
        while not folder.exists():  # write_text makes missing folders
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{option} {path} can't be written ({error_text(error)}): choose another place."
        ) from error


def check_parquet(path: Path, option: str) -> None:
    """``check_writable``, also for the ending .parquet: readers take any other name for a text file."""
    if path.suffix.lower() != ".parquet":
        raise UserError(f"{option} {path} is to be a Parquet file: end its name with .parquet.")
    check_writable(path, option)


def check_new_folder(path: Path, option: str) -> None:
    """Raise UserError unless a folder can be made at ``path``, where an empty one may lie already."""
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{option} {path} is already there: give the name of a new folder.")
    except OSError as error:
        raise UserError(
            f"{option} {path} can't be read ({error_text(error)}): choose another place."
        ) from error
    check_writable(path / "part", option)


def write_text(path: Path, text: str) -> None:
    """``write_bytes`` of the text in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary file beside ``path`` and rename it: an old file stays until then.

    Missing folders are made. Raises UserError if the file can't be written, or if ``path`` is a folder or a
    device.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        _check_regular(path, str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        why = error_text(error)
        raise UserError(
            f"{path} can't be written ({why}): make room there, or choose another place."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()  # exists only after an error: otherwise it was renamed


def _check_regular(path: Path, name: str) -> None:
    """Raise UserError for a folder or a device: renaming would replace a device by a file."""
    if path.exists() and not path.is_file():
        raise UserError(f"{name} can't be written (it is not a regular file): give another name.")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hex. Raises UserError if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{one_line(path)} can't be read ({error_text(error)}): give a checkpoint of recsys-rl train."
        ) from error
