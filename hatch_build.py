"""Compile recsys_rl/functional/compiled/*.c while the package is installed, if there is a C compiler.

Without a working compiler the package uses torch's operators instead (functional/compiled/kernels.py).
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("recsys_rl/functional/compiled")
COMPILE = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-std=gnu11", "-fPIC"]
WIDE = "-mprefer-vector-width=512"  # for machines with such vectors; an option of x86 only


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg, misc]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        library = compile_kernels(Path(self.root) / FOLDER)
        if library is not None:
            build_data["pure_python"] = False
            # Any Python on this kind of machine can open the library.
            system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{system}"
            build_data["artifacts"].append((FOLDER / library.name).as_posix())


def compile_kernels(folder: Path) -> Path | None:
    """Make ``kernels-<hash of the sources>.so`` in ``folder``. On failure print a line and return None."""
    sources = b"".join(file.read_bytes() for file in sorted(folder.glob("*.[ch]")))
    library = folder / f"kernels-{hashlib.sha256(sources).hexdigest()[:16]}.so"
    compiler = shlex.split(os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), "cc"))
    why = "no reason was given"
    # Link without an OpenMP library: at run time the code uses torch's, which is GCC's. Other compilers call
    # functions of other names, so with them there are vectors but no threads.
    parallel = "-fopenmp" if _is_gcc(compiler) else "-fopenmp-simd"
    for options in ([parallel, WIDE], [parallel], ["-fopenmp-simd"], []):
        with tempfile.TemporaryDirectory() as scratch:
            linked = Path(scratch) / "kernels.so"
            objects = {file: Path(scratch) / f"{file.stem}.o" for file in sorted(folder.glob("*.c"))}
            try:
                for source, made in objects.items():
                    _run([*compiler, *COMPILE, *options, "-c", str(source), "-o", str(made)])
                _run([*compiler, "-shared", *map(str, objects.values()), "-o", str(linked), "-lm"])
                _install(linked, library)
            except OSError as error:
                why = str(error)
            except subprocess.CalledProcessError as error:
                why = (error.stderr.strip() or why).splitlines()[0]
            else:
                return library
    print(f"recsys_rl: the kernels were not compiled ({why}); torch's operators stand in.", file=sys.stderr)
    return None


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _is_gcc(compiler: list[str]) -> bool:
    try:
        return "Free Software Foundation" in _run([*compiler, "--version"])
    except (OSError, subprocess.CalledProcessError):
        return False


def _install(linked: Path, library: Path) -> None:
    """Rename into place, so that running processes keep the old library; delete older libraries."""
    with tempfile.NamedTemporaryFile(
        dir=library.parent, prefix="kernels-", suffix=".part", delete=False
    ) as file:
        file.write(linked.read_bytes())
    Path(file.name).chmod(0o755)
    Path(file.name).replace(library)
    for old in library.parent.glob("kernels-*.so"):
        if old != library:
            old.unlink()
