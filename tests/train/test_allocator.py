"""Freed memory is kept for the next step: the system zeroes no page twice."""

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import contextlib, resource, sys
import torch
from facemae.train.allocator import kept_memory

def faults(keep):
    with kept_memory() if keep else contextlib.nullcontext(False) as kept:
        assert kept or not keep
        for _ in range(50):
            torch.ones(2**23)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            torch.ones(2**23)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(False), faults(True), faults(False))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_pages_are_not_taken_from_the_system_again_and_again() -> None:
    pages = 2**25 // resource.getpagesize()
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, kept, after = map(int, done.stdout.split())
    assert before > 2 * pages
    assert kept < pages / 10
    assert after > 2 * pages
