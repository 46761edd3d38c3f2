"""`python -m train` from a checkout: the same as `recsys-rl train`."""

from __future__ import annotations

import sys

from recsys_rl.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
