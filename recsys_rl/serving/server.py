"""`recsys-rl serve`: options -> record, policy, worker and application -> uvicorn."""

from __future__ import annotations

import gc
import itertools
import secrets
import signal
import socket
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import torch
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.stock import encoding_of
from recsys_rl.data.tables.item_encoding import items_of
from recsys_rl.data.tables.pieces import Piece, pieces_of_file
from recsys_rl.errors import UserError, error_text, one_line
from recsys_rl.serving.draw.versions import Silent, Version, open_version
from recsys_rl.serving.http.app import App, Tokens, is_loopback
from recsys_rl.serving.messages import Problem
from recsys_rl.serving.options import ServeConfig
from recsys_rl.serving.record.facts import CHAMPION, COLUMNS, FEATURES, TAGS, facts_of, of_own_place
from recsys_rl.serving.record.record_schema import Damaged, ServedPolicy
from recsys_rl.serving.record.snapshot import champion_in
from recsys_rl.serving.record.stock import Change, Stock, changes_of
from recsys_rl.serving.record.store import Full, Lost, Store
from recsys_rl.serving.releases.active_version import PolicyFiles, checkpoint_at_start
from recsys_rl.serving.work.limits import limited
from recsys_rl.serving.work.release_changes import at_start
from recsys_rl.serving.work.worker import Worker
from recsys_rl.settings.config import Config
from recsys_rl.settings.fields import check_used
from recsys_rl.settings.names import OF_TABLES, platform_of
from recsys_rl.training.folder import nearby
from recsys_rl.utils.files import read_text
from recsys_rl.utils.seeding import generators

SWITCH = 5e-4  # seconds until a waiting thread gets its turn; Python's 5 ms would be seen in every answer
CONNECTIONS = 1024  # at once; more are refused
KEEP_ALIVE = 30  # seconds of a connection without a request


NOBODY = ServedPolicy(0, "", "", "")
"""The policy of a place without one."""


def serve(options: ServeConfig) -> None:
    """Serve until a signal stops the process. Raises UserError before that."""
    tokens = None if options.tokens is None else Tokens(Path(options.tokens))
    if tokens is None and not is_loopback(options.host):
        raise UserError(
            f"--host {options.host} can be reached by others: give --tokens FILE, or listen at 127.0.0.1."
        )
    torch.set_num_threads(1)
    listener = _listen(options.host, options.port)
    record = f"{'record' if Path(options.db).exists() else 'new record'} {one_line(options.db)}"
    try:
        app = application(options, tokens)
        url = url_of(*listener.getsockname()[:2])
        version = app.worker.shared.active.version
        # The run behind a link in checkpoints/.
        policy = nearby(Path(version.row.file)) if version.decides else "none: observing only"
        config = uvicorn.Config(
            app,
            http=limited(HttpToolsProtocol),
            log_level="warning",
            access_log=False,
            lifespan="on",
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=10,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws="none",
        )
        server = uvicorn.Server(config)

        def stop(number: int, frame: FrameType | None) -> None:
            server.should_exit = True

        # Before uvicorn has its own handler, this one asks it to stop as soon as it has started. When it has
        # stopped it raises the signal again.
        signal.signal(signal.SIGTERM, stop)
        print(f"serving at {url}, policy {one_line(policy)}, {record}", file=sys.stderr, flush=True)
        sys.setswitchinterval(SWITCH)
        gc.collect()
        gc.freeze()  # what was made so far stays: it need not be looked through again and again
        server.run([listener])
    finally:
        listener.close()


def application(options: ServeConfig, tokens: Tokens | None = None) -> App:
    """The application over its record. Raises UserError."""
    version = _first_version(options)
    nobody = not options.strangers and not version.row_of_user
    file = one_line(version.row.file or options.checkpoint)
    facts, env = facts_of(version.checkpoint), version.checkpoint.config.env
    own = of_own_place(facts)
    check_used(
        ("no_strangers", nobody, f"{file} knows no users, so it would refuse everyone"),
        ("new_items", options.new_items > 0 and not own, f"the items of {env} never change"),
    )
    store = Store(Path(options.db), facts)
    try:
        stock = _stock(store, version, options.new_items) if own else None
        version = version if stock is None else version.over(stock)
        folder = Path(options.checkpoint)
        policies = PolicyFiles(folder, facts, options.env, options.observe_only, stock)
        if version.decides:
            _try(version, policies)
            if store.facts.get(CHAMPION) != version.row.sha256:
                store.set_fact(CHAMPION, version.row.sha256)
            if version.columns and COLUMNS not in store.facts:
                store.set_fact(COLUMNS, dict(version.columns))
        version.prepare()
        seed = secrets.randbits(32) if options.seed is None else options.seed
        # A server that starts again must not draw the numbers of the last one again.
        stream = f"served after {store.last}"
        release = at_start(store, policies, version)
        worker = Worker(store, version, options, generators(seed, stream)[stream], release)
    except Damaged as damage:
        store.close()
        raise UserError(
            f"{one_line(options.db)} is damaged ({damage}): see recsys-rl log check, and copy it from a "
            "backup."
        ) from damage
    except (Full, Lost) as error:
        store.close()
        raise UserError(
            f"{one_line(options.db)} can't be written ({error}): make room, or choose another place."
        ) from error
    except BaseException:
        store.close()
        raise
    return App(worker, policies, tokens)


def _stock(store: Store, version: Version, new_items: float) -> Stock:
    """The items of a team's own place: those of the record, of a new one those of the policy.

    Raises UserError for a policy of an earlier version, Damaged, Full, Lost.
    """
    encoding = encoding_of(version.checkpoint)
    columns = encoding.columns
    if version.decides and not encoding.knows_items and not new_items:
        print(
            "items are known by their ids alone: one that comes is not shown until a policy has learned of "
            "it; --new-items SHARE shows it",
            file=sys.stderr,
        )
    stock = store.stock()
    if stock.num_rows:
        return stock
    store.set_fact(FEATURES, columns)
    store.set_fact(TAGS, encoding.genres_column)
    items = [item for item in items_of(version.checkpoint.catalogue) if item.live]
    added = changes_of(stock, Change(items, ()), itertools.count(store.last + 1).__next__, time.time())
    store.write(added, durable=True)
    return stock.after(added)


def _first_version(options: ServeConfig) -> Version:
    """The version that serves first, or the place without one. Raises UserError."""
    folder, record = Path(options.checkpoint), Path(options.db)
    if options.observe_only:
        if not champion_in(record):
            assert options.items is not None
            return place_of(options.items, options.signals, options.context, options.slate_size)
        print("--observe-only: a version serves already, and goes on", file=sys.stderr)
    return open_version(checkpoint_at_start(folder, record), 0, options.env)


def place_of(items: str, signals: Sequence[str], context: str | None, slate_size: int) -> Version:
    """The place of these ``items``, a file, with the pieces that the TOML file ``context`` describes.

    Raises UserError for a file that can't be read.
    """
    pieces = () if context is None else read_schema(Path(context))
    tables = platform_of(OF_TABLES).tables
    assert tables is not None
    brought = tables.before_a_log(items, signals, pieces, slate_size)
    config = Config(env=OF_TABLES, **brought.settings)
    interface = tables.interface(config.env_config, brought.world.catalogue)
    checkpoint = Checkpoint(config, interface, brought.world, {}, {}, {}, {}, 0, 0, {})
    return Version(NOBODY, Silent(checkpoint))


def read_schema(path: Path) -> tuple[Piece, ...]:
    """The pieces of the context that a TOML file describes. Raises UserError."""
    try:
        sections = tomllib.loads(read_text(path, "--context", "a TOML file with a section for each piece"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{one_line(path)} is not TOML ({one_line(error)}): correct the line.") from error
    return pieces_of_file(path, sections)


def _try(version: Version, policies: PolicyFiles) -> None:
    """Let the version answer once: the first call of a network takes longer than the others.

    Raises UserError if it fails.
    """
    policies.versions[version.row.sha256] = version
    try:
        policies.tried(version.row.sha256, [])
    except Problem as problem:
        raise UserError(
            f"{one_line(version.row.file)} can't serve: {problem.detail} Give another --checkpoint."
        ) from problem


def url_of(host: str, port: int) -> str:
    """The address for a browser; that of IPv6 stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UserError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise UserError(
            f"The server can't listen at {host}:{port} ({error_text(error)}): give another --port."
        ) from error
    listener.set_inheritable(True)
    return listener
