"""A cache of the results of searches, so that the next evaluation of the same world needs no search."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from recsys_rl.data.catalogue_hash import named_for_a_hash
from recsys_rl.settings.config import Config, to_dict
from recsys_rl.types import Catalogue, Population, tensors_of
from recsys_rl.utils.download import cache_folder
from recsys_rl.utils.tensor_cache import digest, read_tensors, write_tensors

VERSION = 9
"""Version of the search and of the user models. Raise it when a change of either changes the result."""


def file(kind: str, key: str, cache_dir: str | None) -> Path:
    """The file for the result of a search.

    Args:
        kind: the first part of the file's name.
        key: hash of everything that the result depends on; see ``search_key``.
        cache_dir: the folder; None for the user's cache folder.
    """
    return Path(cache_folder(cache_dir)) / f"{kind}-{key[:32]}.safetensors"


def cached(
    path: Path, names: Sequence[str], search: Callable[[], Mapping[str, Tensor]]
) -> Mapping[str, Tensor]:
    """The result of ``search``, from the file if it is there.

    ``names``: those of the tensors in the result. A file without them is made again.
    """
    tensors = read_tensors(path)
    if tensors is not None and tensors.keys() == set(names):
        return tensors
    result = search()
    write_tensors(path, {name: result[name].contiguous().cpu() for name in names})
    print(f"kept for the next evaluation: {path}", file=sys.stderr)
    return result


def search_key(config: Config, catalogue: Catalogue, population: Population, budget: int) -> str:
    """sha256 (hex) of everything that a search on training users depends on.

    It includes ``budget``, the steps of the search, and excludes the held-out users.
    """
    parts = named_for_a_hash(catalogue)
    users = {
        name: values for name, values in tensors_of(population).items() if name.startswith("attributes.")
    }
    for name, values in (users | {"taste": population.taste, "profile": population.profile}).items():
        parts[f"training {name}"] = values[population.train]
    brought = config.platform.brought(config)
    if brought is not None:  # the same path may hold other users later
        parts |= {f"learned {name}": values for name, values in brought.tensors.items()}
    tensors = {name: values.cpu() for name, values in parts.items()}
    return digest(tensors, VERSION, config.env, sorted(to_dict(config.env_config).items()), budget)
