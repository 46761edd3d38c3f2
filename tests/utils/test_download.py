"""Downloads are checked before they are renamed; members are read without unpacking to disk."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import io
import os
import ssl
import tarfile
import urllib.error
import urllib.request
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.types import UserError
from recsys_rl.utils import download
from recsys_rl.utils.download import NoNetwork, cache_folder, fetch, has_member, read_member

BODY = b"twelve bytes"
URL = "https://example.org/a.zip"


class Server:
    """An opener that returns ``body``, and may raise an error after it."""

    def __init__(self, body: bytes = BODY, error: Exception | None = None) -> None:
        self.body, self.error = io.BytesIO(body), error
        self.asked: list[tuple[str, float]] = []

    def __call__(self, url: str, timeout: float) -> Server:
        self.asked.append((url, timeout))
        return self

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def read(self, count: int) -> bytes:
        chunk = self.body.read(count)
        if not chunk and self.error is not None:
            raise self.error
        return chunk


def good(**changes: Any) -> dict[str, Any]:
    return {"size": 12, "sha256": hashlib.sha256(BODY).hexdigest(), **changes}


def test_download_is_renamed_after_the_check_and_shows_progress(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, target = Server(), tmp_path / "new" / "a.zip"
    md5 = hashlib.md5(BODY).hexdigest()
    assert fetch(URL, target, **good(md5=md5), opener=server) == target
    assert target.read_bytes() == BODY
    assert os.listdir(target.parent) == ["a.zip"]
    assert server.asked == [(URL, 30.0)]
    out, err = capsys.readouterr()
    assert out == "" and err == "a.zip: 0.0 MB downloaded\n"


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (BODY, {"sha256": "0" * 64}),
        (BODY, {"md5": "0" * 32}),
        (BODY, {"size": 13}),
        (BODY, {"size": 11}),
        (BODY[:5], {}),
        (b"Twelve bytes", {}),
        (b"", {}),
    ],
)
def test_download_that_fails_the_check_is_deleted(tmp_path: Path, body: bytes, facts: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        fetch(URL, tmp_path / "a.zip", **good(**facts), opener=Server(body))
    assert os.listdir(tmp_path) == []


def test_download_that_fails_the_check_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"old")
    with pytest.raises(UserError):
        fetch(URL, tmp_path / "a.zip", **good(), opener=Server(b"bad"))
    assert (tmp_path / "a.zip").read_bytes() == b"old"


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("timed out"),
        ConnectionResetError("reset"),
        http.client.IncompleteRead(b""),
        urllib.error.URLError("no such host"),
        ssl.SSLCertVerificationError("self-signed certificate"),
    ],
)
def test_broken_connection_raises_no_network(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(NoNetwork, match=r"https://example.org/a.zip can't be read"):
        fetch(URL, tmp_path / "a.zip", **good(), opener=Server(BODY[:4], error))
    assert os.listdir(tmp_path) == []


def test_interrupted_download_is_deleted(tmp_path: Path) -> None:
    class Interrupted(Server):
        def read(self, count: int) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(URL, tmp_path / "a.zip", **good(), opener=Interrupted())
    assert os.listdir(tmp_path) == []


def test_full_disk_is_a_user_error_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError):
        fetch(URL, tmp_path / "a.zip", **good(), opener=Server())
    assert os.listdir(tmp_path) == []


def test_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError):
        fetch(URL, tmp_path / "file" / "a.zip", **good(), opener=Server())


def test_https_and_a_checksum_are_required(tmp_path: Path) -> None:
    server = Server()
    with pytest.raises(UserError):
        fetch("http://example.org/a.zip", tmp_path / "a.zip", **good(), opener=server)
    with pytest.raises(ValueError, match="checksum"):
        fetch(URL, tmp_path / "a.zip", size=12, opener=server)
    assert server.asked == []


def test_redirect_to_http_is_refused() -> None:
    request, handler = urllib.request.Request(URL), download._HttpsOnly()
    arguments = (request, io.BytesIO(), 302, "Found", Message())
    with pytest.raises(UserError):
        handler.redirect_request(*arguments, "http://example.org/b")
    followed = handler.redirect_request(*arguments, "https://example.org/b")
    assert followed.full_url == "https://example.org/b"


def test_certificates_and_host_names_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[ssl.SSLContext] = []

    class Spy(urllib.request.HTTPSHandler):
        def __init__(self, context: ssl.SSLContext) -> None:
            contexts.append(context)
            super().__init__(context=context)

        def https_open(self, req: urllib.request.Request) -> Any:
            raise TimeoutError

    monkeypatch.setattr(urllib.request, "HTTPSHandler", Spy)
    with pytest.raises(TimeoutError):
        download._open_verified(URL, timeout=1.0)
    assert contexts[0].verify_mode == ssl.CERT_REQUIRED and contexts[0].check_hostname


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/else/where")
    assert cache_folder() == Path("/else/where/recsys_rl")
    assert cache_folder(tmp_path) == tmp_path
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == Path("/somewhere/.cache/recsys_rl")


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_archive_members_are_found_by_name_and_gunzipped(tmp_path: Path, make: Any) -> None:
    members = {"x/not_a.csv": b"no", "x/a.csv": b"plain", "../../b.csv.gz": gzip.compress(b"packed")}
    archive = make(tmp_path / "archive", members)
    assert read_member(archive, "a.csv") == b"plain"
    assert read_member(archive, "b.csv") == b"packed"
    assert has_member(archive, "b.csv") and not has_member(archive, "c.csv")
    assert os.listdir(tmp_path) == ["archive"]
    with pytest.raises(UserError):
        read_member(archive, "c.csv")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_zip_bomb_is_not_unpacked(
    tmp_path: Path, make: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two million zeros. Their gzip file is a thousand times shorter."""
    zeros = bytes(2_000_000)
    place = make(tmp_path / "archive", {name: gzip.compress(zeros) if name.endswith("gz") else zeros})
    if make is make_zip:
        with zipfile.ZipFile(place, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"deflated/b{name[1:]}", archive.read(name))
        name = f"b{name[1:]}"
    wanted = name.removesuffix(".gz")
    assert read_member(place, wanted) == zeros
    monkeypatch.setattr(download, "FREE", 1_000)
    with pytest.raises(UserError):
        read_member(place, wanted)


def test_folder_members_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.csv").write_bytes(b"deep")
    assert read_member(tmp_path, "a.csv") == b"packed"
    assert not has_member(tmp_path, "b.csv")
    assert not has_member(tmp_path / "absent", "a.csv")


def test_damaged_archive_is_a_user_error(tmp_path: Path) -> None:
    noise = bytes(range(256)) * 40
    whole_zip = make_zip(tmp_path / "z", {"a.csv": noise}).read_bytes()
    whole_tar = make_tar(tmp_path / "t", {"a.csv": noise}).read_bytes()
    flipped = bytearray(whole_zip)
    flipped[500] ^= 1  # the member's own checksum must catch this
    encrypted = bytearray(whole_zip)
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    bad_gzip = make_zip(tmp_path / "g", {"a.csv.gz": gzip.compress(noise)[:-9]}).read_bytes()
    for broken in (
        flipped,
        encrypted,
        bad_gzip,
        whole_zip[:-30],
        whole_tar[:-40],
        b"",
        b"<html>not found</html>",
    ):
        path = tmp_path / "broken"
        path.write_bytes(bytes(broken))
        with pytest.raises(UserError) as caught:
            read_member(path, "a.csv")
        assert "\n" not in str(caught.value)
