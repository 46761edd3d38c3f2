"""A dict with values that are computed when they are first read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch.utils._pytree import register_pytree_node


def _with_all_values(name: str) -> Any:
    """The method ``name`` of dict, called when every value is computed."""
    method = getattr(dict, name)

    def call(self: LazyDict, *args: Any, **kwargs: Any) -> Any:
        for key in list(self._later):
            self[key]
        return method(self, *args, **kwargs)

    return call


class LazyDict(dict[str, Any]):
    """A dict with some values that are computed at the first reading and then kept.

    It is a dict, as ``gymnasium.spaces.Dict`` contains no other mapping. ``x[key]`` and ``x.get(key)``
    compute this value alone. Every other method that needs values computes all; a copy is a plain dict.
    """

    def __init__(
        self,
        known: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        later: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        """The values ``known``, as dict takes them, and those that the functions in ``later`` will return."""
        self._later = dict(later or {})
        super().__init__({**dict(known), **dict.fromkeys(self._later)})

    def __getitem__(self, key: str) -> Any:
        if key in self._later:
            super().__setitem__(key, self._later.pop(key)())
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401 (that is this method)

    def __setitem__(self, key: str, value: Any) -> None:
        self._later.pop(key, None)
        super().__setitem__(key, value)

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()  # a dict with its own __iter__ is copied by dict(x) through __getitem__

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (dict(self),)

    items: Any = _with_all_values("items")
    values: Any = _with_all_values("values")
    copy: Any = _with_all_values("copy")
    pop: Any = _with_all_values("pop")
    popitem: Any = _with_all_values("popitem")
    setdefault: Any = _with_all_values("setdefault")
    update: Any = _with_all_values("update")
    clear: Any = _with_all_values("clear")
    __delitem__: Any = _with_all_values("__delitem__")
    __or__: Any = _with_all_values("__or__")
    __ror__: Any = _with_all_values("__ror__")
    __ior__: Any = _with_all_values("__ior__")
    __eq__: Any = _with_all_values("__eq__")
    __ne__: Any = _with_all_values("__ne__")
    __repr__: Any = _with_all_values("__repr__")


# torch's tree_map takes any other subclass of dict for one leaf.
register_pytree_node(
    LazyDict, lambda x: (list(x.values()), list(x)), lambda values, keys: dict(zip(keys, values, strict=True))
)
