"""A fixture to import: every test of the module runs with the compiled kernels and without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recsys_rl.functional.compiled import kernels


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(kernels, "library", lambda: None)
        elif kernels.library() is None:
            pytest.skip("the kernels were not compiled here")
        yield
