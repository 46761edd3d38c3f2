"""A disk that loses, at a power cut, every byte that was not synced.

power.c copies what a process syncs. After a kill the copy is what the disk would hold: a file without a sync
is empty, one whose folder was not synced after it was made is not there. A real disk may have written some of
the rest: with a ``lottery`` each sector of 512 bytes has either its synced or its last content.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SECTOR = 512  # bytes, which a disk writes whole or not at all
SOURCE = Path(__file__).with_name("power.c")


def compiled(folder: Path) -> Path | None:
    """The library of power.c; None without Linux or a C compiler."""
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None or sys.platform != "linux":
        return None
    library = folder / "power.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"], check=True)
    return library


class Disk:
    """What is synced of a folder."""

    def __init__(self, library: Path, folder: Path, copy: Path) -> None:
        """All that ``folder`` holds now is synced. ``copy`` is a new folder for what is synced later."""
        self.library, self.folder, self.copy = library, folder, copy
        copy.mkdir()
        for path in (folder, *folder.rglob("*")):
            content = _names(path) if path.is_dir() else path.read_bytes()
            (copy / str(path.stat().st_ino)).write_bytes(content)

    def environment(self, ignored: str = "", kill: tuple[int, str] | None = None) -> Mapping[str, str]:
        """The environment of a server on this disk.

        Args:
            ignored: the disk ignores syncs of files whose names end so.
            kill: (n, end): the server is killed in place of the n-th sync of files whose names end so.
        """
        variables = {"POWER_FOLDER": str(self.folder), "POWER_DISK": str(self.copy)}
        variables |= {"POWER_IGNORED": ignored} if ignored else {}
        variables |= {"POWER_SYNC": str(kill[0]), "POWER_OF": kill[1]} if kill else {}
        return {**os.environ, **variables, "LD_PRELOAD": str(self.library)}

    def after_cut(self, to: Path, lottery: random.Random | None = None) -> None:
        """Make the new folder ``to`` with what the disk holds."""
        self._restore(self.folder, self.folder.stat().st_ino, to, lottery)

    def _restore(self, path: Path, inode: int, to: Path, lottery: random.Random | None) -> None:
        synced = self.copy / str(inode)
        content = synced.read_bytes() if synced.exists() else b""
        if path.is_dir():
            to.mkdir()
            for line in content.decode().splitlines():
                number, _, name = line.partition(" ")
                self._restore(path / name, int(number), to / name, lottery)
        else:
            # A file that was deleted after the last sync of its folder is there again.
            latest = path.read_bytes() if path.exists() and path.stat().st_ino == inode else content
            to.write_bytes(content if lottery is None else mixed(content, latest, lottery))


def _names(folder: Path) -> bytes:
    """The names in a folder, as power.c notes them."""
    return "".join(f"{file.stat().st_ino} {file.name}\n" for file in folder.iterdir()).encode()


def mixed(synced: bytes, latest: bytes, lottery: random.Random) -> bytes:
    """Each sector as it was synced, or as it was written last."""
    share = lottery.random()
    end = lottery.choice((len(synced), len(latest)))
    content = bytearray(synced[:end].ljust(end, b"\0"))
    for at in range(0, end, SECTOR):
        if lottery.random() < share:
            sector = latest[at : min(at + SECTOR, end)]
            content[at : at + len(sector)] = sector
    return bytes(content)
