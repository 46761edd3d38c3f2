"""Download official archives into the cache, check them before they get their name, and read members.

No archive is unpacked to disk: a member is read by name, so a hostile path in an archive has no effect.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import lzma
import os
import ssl
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from recsys_rl.errors import error_text
from recsys_rl.types import UserError

TIMEOUT = 30.0  # seconds without an answer
CHUNK = 1 << 20  # bytes
FREE, RATIO = 1 << 26, 100  # unpacked data may have FREE bytes, or RATIO times the packed size

Opener = Callable[..., Any]  # like urllib.request.urlopen: (url, timeout=seconds) -> response


class NoNetwork(UserError):
    """The address could not be reached, or the connection broke."""


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """``cache_dir``, or recsys_rl in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    if cache_dir is not None:
        return Path(cache_dir)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification: ignore relative paths
        return Path(base) / "recsys_rl"
    try:
        return Path.home() / ".cache" / "recsys_rl"
    except RuntimeError as error:
        raise UserError("There is no home folder for the cache: set HOME or give --cache-dir.") from error


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise UserError(f"{req.full_url} redirects to {newurl}, not https: download it by hand.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open_verified(url: str, timeout: float) -> Any:
    """Open with the system's certificates and host name checks. No option turns them off."""
    https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    return urllib.request.build_opener(https, _HttpsOnly).open(url, timeout=timeout)


def fetch(
    url: str,
    target: Path,
    *,
    size: int,
    sha256: str | None = None,
    md5: str | None = None,
    opener: Opener = _open_verified,
) -> Path:
    """Download ``url`` to ``target`` if its bytes have the given size and hashes; return ``target``.

    The bytes go to a temporary file beside ``target``. The file is renamed after the check, and deleted
    after any failure. Raises NoNetwork if the address can't be read, UserError for every other failure.
    """
    if not url.startswith("https://"):
        raise UserError(f"{url} is not an https address: downloads are only made over https.")
    expected = {name: digest for name, digest in (("sha256", sha256), ("md5", md5)) if digest is not None}
    if not expected:
        raise ValueError("a download needs a checksum")
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in expected}
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = Path(file.name)
            received = 0
            for chunk in _chunks(url, opener):
                received += len(chunk)
                if received > size:
                    break
                file.write(chunk)
                for digest in hashes.values():
                    digest.update(chunk)
                _progress(target.name, received, size)
            file.flush()
            os.fsync(file.fileno())
        if received != size or any(hashes[name].hexdigest() != expected[name] for name in expected):
            raise UserError(
                f"The download of {url} does not match its published size and checksum and was deleted: try "
                "again, or give a folder that has the data (--data-dir)."
            )
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"{target} can't be written ({error_text(error)}): make room there, or choose another "
            "folder with --cache-dir."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return target


def _chunks(url: str, opener: Opener) -> Iterator[bytes]:
    """The body of ``url``. Network failures become NoNetwork: most are OSErrors, as disk failures are."""
    try:
        with opener(url, timeout=TIMEOUT) as response:
            while chunk := response.read(CHUNK):
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise NoNetwork(f"{url} can't be read: {getattr(error, 'reason', None) or error}") from error


def _progress(name: str, received: int, size: int) -> None:
    """One line on stderr: rewritten on a terminal, elsewhere written once at the end."""
    done = received == size
    if sys.stderr.isatty():
        end = "\n" if done else ""
        print(f"\r{name}: {received / 1e6:.1f} of {size / 1e6:.1f} MB", end=end, file=sys.stderr, flush=True)
    elif done:
        print(f"{name}: {size / 1e6:.1f} MB downloaded", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _readable(location: Path) -> Iterator[None]:
    """Turn the errors of a damaged, encrypted or foreign archive into a UserError."""
    try:
        yield
    except (
        OSError,
        EOFError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
        tarfile.TarError,
    ) as error:
        reason = str(error).split(":", 1)[0].split("\n", 1)[0]
        raise UserError(
            f"{location} can't be read ({reason}): give a whole, readable zip or tar archive, or delete it "
            "to have it downloaded again."
        ) from error


def _locate(location: Path, name: str) -> str | None:
    """The path in ``location`` of ``name`` or ``name``.gz: directly in a folder, anywhere in an archive."""
    wanted = (name, f"{name}.gz")
    if location.is_dir():
        return next((candidate for candidate in wanted if (location / candidate).is_file()), None)
    if not location.is_file():
        return None
    with _readable(location):
        if zipfile.is_zipfile(location):
            with zipfile.ZipFile(location) as archive:
                paths = archive.namelist()
        else:
            paths, packed = [], location.stat().st_size
            with tarfile.open(location) as tar:
                for member in tar:  # tarfile unpacks this member to find the next
                    check_unpacked(member.offset_data + member.size, packed, location)
                    if member.isfile():
                        paths.append(member.name)
    return next(
        (path for path in paths if PurePosixPath(path).name in wanted and not path.endswith("/")), None
    )


def has_member(location: Path, name: str) -> bool:
    """True if ``read_member`` finds the file; False if ``location`` doesn't exist."""
    return _locate(location, name) is not None


def read_member(location: Path, name: str) -> bytes:
    """The bytes of the file ``name`` of a folder, zip or tar archive, gunzipped if it is ``name``.gz."""
    path = _locate(location, name)
    if path is None:
        raise UserError(f"{location} has no file {name}: give the complete official archive or folder.")
    with _readable(location / path):
        if location.is_dir():
            raw = (location / path).read_bytes()
        elif zipfile.is_zipfile(location):
            with zipfile.ZipFile(location) as archive:
                facts = archive.getinfo(path)
                check_unpacked(facts.file_size, facts.compress_size, location / path)
                raw = archive.read(facts)  # zipfile reads at most the declared size
        else:
            with tarfile.open(location) as tar:
                member = tar.extractfile(path)
                raw = member.read() if member is not None else b""
        return gunzip(raw, location / path) if path.endswith(".gz") else raw


def gunzip(packed: bytes, location: Path) -> bytes:
    """The bytes of a gzip file. Raises UserError if they are too many, and the errors of ``gzip``."""
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        raw = file.read(_most(len(packed)) + 1)
    check_unpacked(len(raw), len(packed), location)
    return raw


def check_unpacked(size: int, packed: int, location: Path) -> None:
    """Raise UserError if ``packed`` bytes unpack to so many that the file looks like an attack."""
    if size > _most(packed):
        raise UserError(
            f"{location} would unpack to more than {RATIO} times its size: if that is right, unpack it "
            "yourself and give the folder or the CSV file."
        )


def _most(packed: int) -> int:
    return max(FREE, RATIO * packed)
