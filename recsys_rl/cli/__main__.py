"""As launch.py starts it, and `torchrun --nproc-per-node 2 -m recsys_rl.cli train`."""

from __future__ import annotations

import os
import sys

from recsys_rl.cli import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is written; threads of gloo have been seen to abort an interpreter that winds down
