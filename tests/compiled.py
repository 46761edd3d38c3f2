"""Fixtures to import: tests with the compiled kernels and without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recsys_rl.functional.compiled import kernels


@pytest.fixture
def without_kernels() -> Iterator[None]:
    """The test runs as on a machine where nothing was compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "library", lambda: None)
        yield


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def each_way(request: pytest.FixtureRequest) -> None:
    """Every test of the module runs both ways."""
    if request.param == "torch":
        request.getfixturevalue("without_kernels")
    elif kernels.library() is None:
        pytest.skip("the kernels were not compiled here")
