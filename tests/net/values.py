"""Values that do not depend on names of modules: of checkpoints, tables, texts and pages."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import safetensors
import torch
from torch import Tensor

TIMES = {"seconds", "wall_seconds", "steps_per_second", "time", "created", "version", "versions"}
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
DURATION = re.compile(r"[\d,.]+ (?:steps/s|s\b|ms\b|seconds|minutes)")


def digest(data: bytes | str) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def checkpoint(path: Path) -> dict[str, list[str]]:
    """The tensors of each section of a checkpoint, as "shape type digest", in an order without names.

    A section is what stands before the first dot of a tensor's name. Tensors of the agent that are one vector
    for all weights, as the moments of Adam, hold the weights in the order of their creation. The file
    keeps the others sorted by name, and names may change, so they are sorted by what they hold.
    """
    sections: dict[str, list[str]] = {}
    with safetensors.safe_open(str(path), framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  # not a dict
            sections.setdefault(name.partition(".")[0], []).append(_tensor(file.get_tensor(name)))
    return {name: sorted(found) for name, found in sorted(sections.items())}


def _tensor(tensor: Tensor) -> str:
    raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} {digest(raw)}"


def table(path: Path, without: Iterable[str] = ()) -> dict[str, Any]:
    """A JSON file as flat names and values, without times, paths, texts with a duration, and ``without``."""
    flat = dict(_flat("", json.loads(path.read_text())))
    left_out = TIMES | set(without)
    return {
        name: value
        for name, value in flat.items()
        if not left_out & set(name.split("/"))
        and not (isinstance(value, str) and ("/" in value or DURATION.search(value)))
    }


def _flat(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}/{name}" if prefix else str(name), inner)
    elif isinstance(value, list) and len(value) > 8:
        yield prefix, f"{len(value)} values, {digest(json.dumps(value))}"
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _flat(f"{prefix}/{place}", inner)
    else:
        yield prefix, value


def rows(path: Path, without: Iterable[str] = ()) -> dict[str, str]:
    """The columns of a Parquet file, or of a folder's files, as digests, without those of ``without``."""
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    read = pl.concat([pl.read_parquet(file) for file in files], how="vertical")
    found = {"rows": str(read.height)}
    for name in read.columns:
        if name not in without:
            found[name] = f"{read[name].dtype} {digest(json.dumps(read[name].to_list()))}"
    return found


def curve(path: Path) -> dict[str, str]:
    """The rows of a run's log.csv, a digest for each name, without the columns and names of times."""
    read = pl.read_csv(path, infer_schema=False)
    found = {}
    for (name,), part in read.drop("seconds").group_by("name", maintain_order=True):
        if not re.search("second|sps", str(name)):
            found[str(name)] = digest(json.dumps(part.rows()))
    return found


def lines(text: str) -> list[str]:
    """The lines of what a command printed, without those that hold a duration or a path."""
    return [line for line in text.splitlines() if not DURATION.search(line) and "/" not in line]


def page(path: Path) -> dict[str, Any]:
    """The numbers of an HTML page: in its visible text, and in the attributes of its pictures."""
    text = re.sub(r"<(style|script).*?</\1>", " ", path.read_text(), flags=re.S)
    drawn = [number for tag in re.findall(r"<[^>]+>", text) for number in NUMBER.findall(_shape(tag))]
    seen = NUMBER.findall(DURATION.sub(" ", html.unescape(re.sub(r"<[^>]+>", " ", text))))
    return {"text": seen, "pictures": f"{len(drawn)} numbers, {digest(' '.join(drawn))}"}


def _shape(tag: str) -> str:
    """The attributes of a tag that place it in a picture."""
    return " ".join(re.findall(r'\b(?:d|points|x\d?|y\d?|cx|cy|r|width|height|transform)="[^"]*"', tag))
