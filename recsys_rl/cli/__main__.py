"""The entry point for `torchrun --standalone --nproc-per-node 2 -m recsys_rl.cli train`."""

from __future__ import annotations

import os
import sys

from recsys_rl.cli import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all files are written; threads of gloo can abort an interpreter that ends normally
