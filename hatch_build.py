"""Compiles recsys_rl/functional/kernels.c while the package is installed, where there is a C compiler.

Where there is none, or it fails, the package works all the same: functional/kernels.py says what then runs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("recsys_rl/functional")
COMPILE = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-std=gnu11", "-fPIC", "-fopenmp"]
WIDE = ["-mprefer-vector-width=512"]  # where the machine has such vectors; x86 alone knows the option


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg, misc]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        library = compile_kernels(Path(self.root) / FOLDER)
        if library is not None:
            build_data["pure_python"] = False
            # Any Python can open it, on this kind of machine.
            system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{system}"
            build_data["artifacts"].append((FOLDER / library.name).as_posix())


def compile_kernels(folder: Path) -> Path | None:
    """Make ``kernels-<hash of the source>.so`` in ``folder``; None and a line on stderr where that fails."""
    source = folder / "kernels.c"
    library = folder / f"kernels-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so"
    for old in folder.glob("kernels-*"):
        if old != library:
            old.unlink()
    compiler = os.environ.get("CC") or next(
        (name for name in ("cc", "gcc", "clang") if shutil.which(name)), "cc"
    )
    with tempfile.TemporaryDirectory() as scratch:
        made, linked = Path(scratch) / "kernels.o", Path(scratch) / "kernels.so"
        # Linked without OpenMP's library: at run time torch's own is used, and its threads.
        link = [compiler, "-shared", str(made), "-o", str(linked), "-lm"]
        why = "no reason was given"
        for options in (COMPILE + WIDE, COMPILE, COMPILE[:-1]):
            try:
                for command in ([compiler, *options, "-c", str(source), "-o", str(made)], link):
                    subprocess.run(command, check=True, capture_output=True, text=True)
            except OSError as error:
                why = str(error)
            except subprocess.CalledProcessError as error:
                why = (error.stderr.strip() or why).splitlines()[0]
            else:
                # Renamed into place: a process that runs the old one keeps it.
                shutil.copyfile(linked, library.with_suffix(".part"))
                library.with_suffix(".part").replace(library)
                return library
    print(f"recsys_rl: the kernels were not compiled ({why}); torch's operators stand in.", file=sys.stderr)
    return None
