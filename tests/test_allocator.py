"""Freed memory is used again, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import sys
if sys.argv[1] == "keep":
    from recsys_rl.utils.allocator import keep_freed_memory
    keep_freed_memory()
import resource, torch
torch.set_num_threads(1)
def work():
    x = torch.zeros(512, 1000)  # 2 MB twice, and both given back
    y = x + 1
for _ in range(10):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.proof
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is meant")
def test_fewer_pages_are_asked_for() -> None:
    def faults(way: str) -> int:
        command = [sys.executable, "-c", FAULTS, way]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    given_back = faults("give")
    if given_back < 10_000:
        pytest.skip("this allocator keeps freed memory by itself")
    assert faults("keep") < given_back / 10
