"""One self-contained, code-free file: everything that evaluation, serving and a resumed run need.

The file is in the safetensors format whatever its name: tensors, and one JSON text in the metadata.
It proves itself by a sha256 over all its bytes (the 64 digits of the hash itself counted as zeros),
so a truncated or altered file is refused, and nothing in it is ever executed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import time
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from recsys_rl.config import Config, from_dict, to_dict
from recsys_rl.types import Catalogue, Population, UserError

FORMAT = 1
_KEY = "recsys_rl"
_ZEROS = "0" * 64
_MAX_HEADER = 100_000_000  # bytes; the safetensors format's own limit
_DEBRIS_AGE = 3600.0  # seconds; no save takes that long, so an older temporary file has lost its writer
_MALFORMED = (safetensors.SafetensorError, AssertionError, KeyError, RuntimeError, TypeError, ValueError)
_MEND = "give a whole checkpoint, or train again"


@dataclass(frozen=True)
class Checkpoint:
    """A run between two updates. Tensors and JSON primitives only; ``load`` gives tensors on the CPU."""

    config: Config
    catalogue: Catalogue | None  # None for gym: environments
    population: Population | None
    agent: Mapping[str, Tensor]  # weights, optimiser, normalisation
    env: Mapping[str, Tensor]  # the environment's sessions
    generators: Mapping[str, Tensor]  # states of torch.Generator, uint8
    step: int  # environment steps so far, over all users
    updates: int
    info: Mapping[str, Any]  # JSON primitives: facts of the environment, versions


class _Refused(Exception):
    """Why a file is no checkpoint: ``cause`` follows the file's name, ``mend`` follows the colon."""

    def __init__(self, cause: str, mend: str = _MEND) -> None:
        super().__init__(cause)
        self.cause, self.mend = cause, mend


def previous(path: Path) -> Path:
    """Where ``save`` keeps the checkpoint before this one: ppo.pt -> ppo.prev.pt."""
    return path.with_name(f"{path.stem}.prev{path.suffix}")


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint so that ``path``, once it existed, is a whole checkpoint at every moment.

    The bytes go to a temporary name in the same folder, reach the disk, and are renamed; what was
    there before is kept as ``previous(path)``. Equal checkpoints give equal bytes.

    Raises UserError, and leaves the old checkpoint as it was, where the disk is full or read-only, or
    where the agent holds NaN or infinite values.
    """
    try:
        _check_finite("agent", checkpoint.agent)
    except _Refused as refused:
        raise UserError(
            f"{path} isn't written, as the checkpoint {refused.cause}: lower lr or max_grad_norm and resume."
        ) from None
    header, body = _encode(checkpoint)
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
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(
            f"{path} can't be written ({error.strerror or error}): make room or give another "
            "--checkpoint-dir; a checkpoint that was there before is unharmed."
        ) from error
    finally:
        # The link outlives its rename where both names were one file already: POSIX rename then does nothing.
        for leftover in (temporary, link):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Read what ``save`` wrote.

    Raises UserError, in one sentence, for whatever is not a whole and sound checkpoint; it names the
    previous checkpoint where that one is. A pickle is recognised and never opened.
    """
    try:
        return _load(path)
    except _Refused as refused:
        mend = refused.mend
        with contextlib.suppress(_Refused):
            _load(previous(path))
            mend = f"{mend}, or give {previous(path)}, the whole checkpoint before it"
        raise UserError(f"{path} {refused.cause}: {mend}.") from refused


def catalogue_digest(catalogue: Catalogue) -> str:
    """sha256 (hex) of every field of the catalogue: equal exactly where all bytes and titles are."""
    return _digest(catalogue)


def check_algo(path: Path, checkpoint: Checkpoint, algo: str) -> None:
    """Raise UserError where the checkpoint at ``path`` is another algorithm's."""
    saved = checkpoint.config.algo
    if saved != algo:
        raise UserError(
            f"{path} is a checkpoint of {saved}, not of {algo}: give --algo {saved} or another file."
        )


def check_same_world(
    path: Path,
    checkpoint: Checkpoint,
    config: Config,
    catalogue: Catalogue | None,
    population: Population | None,
) -> None:
    """Raise UserError where a run can't go on from the checkpoint at ``path``.

    Algorithm, environment, items and users must be the same. Another split of the same users counts as
    other users: held-out ones would be trained on.
    """
    check_algo(path, checkpoint, config.algo)
    saved = checkpoint.config.env
    if saved != config.env:
        raise UserError(
            f"{path} was trained on --env {saved}, not {config.env}: give --env {saved} or train anew."
        )
    pairs = (
        ("another catalogue", checkpoint.catalogue, catalogue),
        ("other users", checkpoint.population, population),
    )
    for word, old, new in pairs:
        if (old and _digest(old)) != (new and _digest(new)):
            raise UserError(
                f"{path} was trained on {word} ({_describe(old)}) than this run has ({_describe(new)}): "
                "give the data, seed and size options of that run, or train anew."
            )


# Writing.


def _encode(checkpoint: Checkpoint) -> tuple[bytes, memoryview]:
    """The signed header and the tensors' bytes."""
    texts: dict[str, Any] = {"catalogue": None, "population": None}
    tensors: dict[str, Tensor] = {}
    for section in texts:
        noun = getattr(checkpoint, section)
        if noun is not None:
            rows, texts[section] = _take_apart(noun)
            tensors |= {f"{section}.{name}": tensor for name, tensor in rows.items()}
    for section in ("agent", "env", "generators"):
        tensors |= {f"{section}.{name}": tensor for name, tensor in getattr(checkpoint, section).items()}
    facts = {
        "format": FORMAT,
        "step": checkpoint.step,
        "updates": checkpoint.updates,
        "config": to_dict(checkpoint.config),
        "info": dict(checkpoint.info),
        **texts,
    }
    blob = _pack(tensors, {"sha256": _ZEROS, **facts})
    start = 8 + int.from_bytes(blob[:8], "little")
    digest = hashlib.sha256(blob).hexdigest()
    # The metadata opens the header and the hash opens the metadata: the first run of zeros is its place.
    return blob[:start].replace(_ZEROS.encode(), digest.encode(), 1), memoryview(blob)[start:]


def _pack(tensors: Mapping[str, Tensor], texts: Mapping[str, Any]) -> bytes:
    """One metadata key only: safetensors writes several in any order."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(own, {_KEY: json.dumps(texts)})


def _take_apart(noun: Catalogue | Population) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Its tensors, and its other fields (strings and tuples of strings)."""
    fields = {field.name: getattr(noun, field.name) for field in dataclasses.fields(noun)}
    tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in fields.items() if name not in tensors}


def _digest(noun: Catalogue | Population) -> str:
    return hashlib.sha256(_pack(*_take_apart(noun))).hexdigest()


def _describe(noun: Catalogue | Population | None) -> str:
    if noun is None:
        return "none"
    count = f"{noun.num_items} of {noun.source}" if isinstance(noun, Catalogue) else len(noun.user_ids)
    return f"{count}, digest {_digest(noun)[:12]}"


def _second_name(path: Path, link: Path) -> None:
    """A hard link; a copy on file systems that have none."""
    try:
        os.link(path, link)
    except OSError:
        shutil.copyfile(path, link)
        with link.open("rb+") as file:
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the renames last through a power cut; only POSIX can open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_debris(path: Path) -> None:
    """Delete what killed runs left half-written; young files may belong to a run that is alive."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _DEBRIS_AGE:
                old.unlink()


# Reading. Everything in the file is a stranger's word until it is checked.


def _load(path: Path) -> Checkpoint:
    try:
        texts, tensors = _decode(path)
        return _assemble(texts, tensors)
    except OSError as error:
        raise _Refused(f"can't be read ({error.strerror or error})", "mend that") from error
    except MemoryError:
        raise _Refused("is larger than this machine's memory", "use a larger machine") from None


def _decode(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON and the tensors of a file whose hash holds."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise _Refused(what, "train first, or check the path")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise _Refused("is empty")
        head = file.read(8)
        length = int.from_bytes(head, "little")
        header = file.read(min(length, _MAX_HEADER, size))
        if len(head) + length > size or length > _MAX_HEADER:
            raise _Refused("is truncated" if header[:1] == b"{" else _foreign(head))
        texts = _metadata(header)
        if texts is None:  # the rest of a stranger's file, which may be huge, is not even read
            raise _Refused(_foreign(head))
        header = head + header
        blob = header + file.read()
    version = texts.get("format")
    if type(version) is int and version > FORMAT:
        raise _Refused(f"has format {version}, newer than the {FORMAT} of this version", "update recsys_rl")
    if version != FORMAT or not _proves_itself(blob, len(header), texts.get("sha256")):
        raise _Refused("is truncated or altered (its content does not match its hash)")
    try:
        return texts, safetensors.torch.load(blob)
    except _MALFORMED as error:
        raise _Refused(f"holds malformed tensors ({type(error).__name__})") from error


def _proves_itself(blob: bytes, start: int, digest: object) -> bool:
    """Whether the hash that stands in the header, ``blob[:start]``, is that of the blob."""
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        return False
    proof = hashlib.sha256(blob[:start].replace(digest.encode(), _ZEROS.encode(), 1))
    proof.update(memoryview(blob)[start:])
    return proof.hexdigest() == digest


def _metadata(header: bytes) -> dict[str, Any] | None:
    """Our JSON in a safetensors header; None where this isn't one."""
    try:
        texts = json.loads(json.loads(header)["__metadata__"][_KEY])
    except (KeyError, RecursionError, TypeError, ValueError):
        return None
    return texts if isinstance(texts, dict) else None


def _foreign(head: bytes) -> str:
    if head[:4] == b"PK\x03\x04" or re.match(rb"\x80[\x02-\x05]", head):
        return "is a pickle as torch.save makes it, which is never opened because it could run code"
    return "is not a checkpoint of recsys_rl"


def _assemble(texts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    sections: dict[str, dict[str, Tensor]] = {
        name: {} for name in ("agent", "env", "generators", "catalogue", "population")
    }
    for name in sorted(tensors):
        section, _, rest = name.partition(".")
        if section not in sections:
            raise _Refused(f"holds the unknown tensor {name!r}")
        sections[section][rest] = tensors[name]
    for name, kind in (("step", int), ("updates", int), ("info", dict), ("config", dict)):
        if type(texts.get(name)) is not kind or (kind is int and texts[name] < 0):
            raise _Refused(f"has no valid {name!r}")
    try:
        config = from_dict(Config, texts["config"])
    except UserError as error:
        raise _Refused(f"holds settings of no use to this version ({str(error).rstrip('.')})") from error
    catalogue = _rebuild(Catalogue, "catalogue", texts, sections["catalogue"])
    population = _rebuild(Population, "population", texts, sections["population"])
    _check_sound(sections["agent"], sections["generators"], catalogue, population)
    return Checkpoint(
        config=config,
        catalogue=catalogue,
        population=population,
        agent=sections["agent"],
        env=sections["env"],
        generators=sections["generators"],
        step=texts["step"],
        updates=texts["updates"],
        info=texts["info"],
    )


T_Noun = TypeVar("T_Noun", Catalogue, Population)


def _rebuild(
    kind: type[T_Noun], section: str, texts: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> T_Noun | None:
    """The dataclass from its tensors and texts, each of its fields there and of the declared type."""
    others = texts.get(section)
    if others is None and not tensors:
        return None
    found = {**(others if isinstance(others, dict) else {}), **tensors}
    hints = typing.get_type_hints(kind)
    if found.keys() != hints.keys():
        name = min(found.keys() ^ hints.keys())
        how = "with the unknown" if name in found else "without the"
        raise _Refused(f"holds a {section} {how} field {name!r}")
    for name, hint in hints.items():
        value = found[name]
        if hint == tuple[str, ...] and isinstance(value, list) and all(type(text) is str for text in value):
            found[name] = tuple(value)
        elif hint not in (Tensor, str) or not isinstance(value, hint):
            raise _Refused(f"holds a {section} whose {name!r} is of the wrong type")
    return kind(**found)


def _check_sound(
    agent: Mapping[str, Tensor],
    generators: Mapping[str, Tensor],
    catalogue: Catalogue | None,
    population: Population | None,
) -> None:
    """Refuse what would only fail later: NaN, shapes that disagree, rows that don't exist."""
    _check_finite("agent", agent)
    for name, state in generators.items():
        if state.dtype != torch.uint8 or state.ndim != 1:
            raise _Refused(f"holds no generator state in {name!r}")
    if catalogue is not None:
        _check_finite("catalogue", {"embedding": catalogue.embedding})
        items, columns = _take_apart(catalogue)[0], (len(catalogue.titles), len(catalogue.genre_names))
        if any(tensor.shape[:1] != columns[:1] for tensor in items.values()):
            raise _Refused("holds a catalogue whose fields disagree in their number of items")
        if catalogue.genres.shape != columns or catalogue.embedding.ndim != 2:
            raise _Refused("holds a catalogue whose embedding or genres have a wrong shape")
    if population is not None:
        _check_finite("population", {"taste": population.taste, "profile": population.profile})
        shape = population.taste.shape
        if population.profile.shape != shape or len(shape) != 2 or population.user_ids.shape != shape[:1]:
            raise _Refused("holds a population whose fields disagree in their number of users")
        if catalogue is None or shape[1:] != catalogue.embedding.shape[1:]:
            raise _Refused("holds users and items whose embeddings differ in size")
        rows = torch.cat((population.train.flatten(), population.heldout.flatten()))
        if rows.dtype != torch.int64 or bool(((rows < 0) | (rows >= shape[0])).any()):
            raise _Refused("holds a split with rows that are no users")


def _check_finite(section: str, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise _Refused(f"holds NaN or infinite values in {section} tensor {name!r}")
