"""`python -m evaluate` from a checkout: the same as `recsys-rl evaluate`."""

from __future__ import annotations

import sys

from recsys_rl.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
