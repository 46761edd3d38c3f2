"""`python -m recsys_rl`: the same as `recsys-rl`."""

from __future__ import annotations

from recsys_rl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
