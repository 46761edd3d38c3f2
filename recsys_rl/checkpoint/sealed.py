"""JSON and tensors in one safetensors file with its own sha256, written whole or not at all.

The JSON is one text in the safetensors metadata. It holds a sha256 over all bytes of the file (the 64
digits of the hash itself counted as zeros), so a truncated or altered file is refused. No part of the file
is executed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from recsys_rl.errors import error_text
from recsys_rl.types import UserError

FORMAT = 4
OLDEST = 3  # that can still be read
_KEY = "recsys_rl"
_ZEROS = "0" * 64
_MAX_HEADER = 100_000_000  # bytes; the safetensors format's own limit
_DEBRIS_AGE = 3600.0  # seconds; no save takes that long, so the writer of an older temporary file is dead
_MALFORMED = (safetensors.SafetensorError, AssertionError, KeyError, RuntimeError, TypeError, ValueError)


class Refused(Exception):
    """A file can't be used: in the error ``cause`` follows the file's name, ``mend`` follows the colon."""

    def __init__(self, cause: str, mend: str = "give a whole checkpoint, or train again") -> None:
        super().__init__(cause)
        self.cause, self.mend = cause, mend


def previous(path: Path) -> Path:
    """The name under which ``write`` keeps the old file: ppo.pt -> ppo.prev.pt."""
    return path.with_name(f"{path.stem}.prev{path.suffix}")


def write(path: Path, texts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write JSON and tensors to ``path``. After the first write, the file there is whole at every moment.

    The bytes go to a temporary file in the same folder, reach the disk, and the file is renamed. The old
    file becomes ``previous(path)``. Raises UserError, and does not change the old file, if the disk is full
    or read-only.
    """
    header, body = _seal(texts, tensors)
    stem = f".{path.name}.{secrets.token_hex(8)}"
    temporary, link = path.with_name(f"{stem}.tmp"), path.with_name(f"{stem}.prev.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_debris(path)
        with temporary.open("xb") as file:
            file.write(header)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            _second_name(path, link)
            os.replace(link, previous(path))
        os.replace(temporary, path)
        sync(path.parent)  # so that a power cut can't undo the renames
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error_text(error)}): make room or give another "
            "--runs-dir; a checkpoint that was there before is unharmed."
        ) from error
    finally:
        # POSIX rename does nothing if both names are already one file: then the link is still there.
        for leftover in (temporary, link):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON and the tensors (on the CPU) of a file with a right hash. Raises Refused for any other."""
    try:
        return _read(path)
    except OSError as error:
        raise Refused(f"can't be read ({error_text(error)})", "mend that") from error
    except MemoryError:
        raise Refused("is larger than this machine's memory", "use a larger machine") from None


def _pack(texts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Equal bytes for equal content: only one metadata key, because safetensors writes keys in any order."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(own, {_KEY: json.dumps(texts)})


def _seal(texts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[bytes, memoryview]:
    """The header with the hash in it, and the bytes of the tensors."""
    blob = _pack({"sha256": _ZEROS, "format": FORMAT, **texts}, tensors)
    start = 8 + int.from_bytes(blob[:8], "little")
    proof = hashlib.sha256(blob).hexdigest()
    # The header begins with the metadata, and the metadata with the hash: replace the first 64 zeros.
    return blob[:start].replace(_ZEROS.encode(), proof.encode(), 1), memoryview(blob)[start:]


def _second_name(path: Path, link: Path) -> None:
    """Make a hard link, or a copy on file systems without hard links."""
    try:
        os.link(path, link)
    except OSError:
        shutil.copyfile(path, link)
        with link.open("rb+") as file:
            os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Write what a file or a folder holds to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_debris(path: Path) -> None:
    """Delete the half-written files of killed runs, but not young files: a run may be writing them."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _DEBRIS_AGE:
                old.unlink()


# Reading: trust nothing in the file before the hash is checked, and check the content after that too.


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        if path.is_dir():
            raise Refused("is a folder", f"give a checkpoint in it, as {path / 'ppo.pt'}")
        what = "is not a file" if path.exists() else "does not exist"
        if path.is_symlink() and not path.exists():
            what = f"is a link to {os.readlink(path)}, which is gone"
        raise Refused(what, "train first, or check the path")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise Refused("is empty")
        head = file.read(8)
        length = int.from_bytes(head, "little")
        header = file.read(min(length, _MAX_HEADER, size))
        if len(head) + length > size or length > _MAX_HEADER:
            raise Refused("is truncated" if header[:1] == b"{" else _foreign(head))
        texts = _texts(header)
        if texts is None:  # not our file: don't read the rest, which may be huge
            raise Refused(_foreign(head))
        blob = head + header + file.read()
    version = texts.pop("format", None)
    if type(version) is int and version > FORMAT:
        raise Refused(f"has format {version}, newer than the {FORMAT} of this version", "update recsys_rl")
    if type(version) is int and version < OLDEST:
        raise Refused(
            f"has format {version}, of an earlier version than the {FORMAT} of this one", "train again"
        )
    if type(version) is not int or not _proves_itself(blob, 8 + length, texts.pop("sha256", None)):
        raise Refused("is truncated or altered (its content does not match its hash)")
    try:
        return texts, safetensors.torch.load(blob)
    except _MALFORMED as error:
        raise Refused(f"holds malformed tensors ({type(error).__name__})") from error


def _texts(header: bytes) -> dict[str, Any] | None:
    """The JSON of this package in a safetensors header; None if there is none."""
    try:
        texts = json.loads(json.loads(header)["__metadata__"][_KEY])
    except (KeyError, RecursionError, TypeError, ValueError):
        return None
    return texts if isinstance(texts, dict) else None


def _proves_itself(blob: bytes, start: int, proof: object) -> bool:
    """True if the hash in the header, ``blob[:start]``, is the hash of the blob."""
    if not isinstance(proof, str) or not re.fullmatch("[0-9a-f]{64}", proof):
        return False
    total = hashlib.sha256(blob[:start].replace(proof.encode(), _ZEROS.encode(), 1))
    total.update(memoryview(blob)[start:])
    return total.hexdigest() == proof


def _foreign(head: bytes) -> str:
    if head[:4] == b"PK\x03\x04" or re.match(rb"\x80[\x02-\x05]", head):
        return "is a pickle as torch.save makes it, which is never opened because it could run code"
    return "is not a checkpoint of recsys_rl"
