"""Tables in the formats that people have: text with any separator, JSON lines, gzip of both, and Parquet.

Text is UTF-8, else Latin-1. A file that begins with { has JSON lines (json_lines.py). The separator of other
text is found in its first line, or given. A header may be typed (`user_id:token`, as in `.inter` files) or
absent (as in the `.dat` and `.data` files of MovieLens). Text columns stay text: the caller parses them.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recsys_rl.data.tables.json_lines import JsonTable, read_json_lines
from recsys_rl.data.tables.values import NUMBER
from recsys_rl.errors import UserError, error_text, one_line, short
from recsys_rl.settings.fields import check_used
from recsys_rl.utils.download import gunzip

TEXT_ENDINGS = (".csv", ".tsv", ".dat", ".txt", ".inter", ".data", ".jsonl", ".ndjson", ".dsjson")
ENDINGS = (*(ending + packed for ending in TEXT_ENDINGS for packed in ("", ".gz")), ".parquet")

WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
"""Words for --separator, as some separators are hard to type."""

HEADLESS = ("user", "item", "rating", "timestamp")
"""The columns of a log of events without a header, as MovieLens and many others have them."""
DECISIONS = "recsys-rl.decisions"
"""The key of the header of a log of decisions, in the metadata of a Parquet file."""

_UNIT = "\x1f"  # replaces "::", as the parser takes separators of one byte
_TYPED = re.compile(r":(token|float|token_seq|float_seq)$")


@dataclass(frozen=True)
class TableFile:
    """A table on disk. The names of its columns are known, and its rows are not parsed yet."""

    path: Path
    names: tuple[str, ...]  # of the columns, without types
    raw: bytes | None = None  # the text of columns; None for JSON lines and Parquet
    separator: str = ""  # one byte; "" for JSON lines and Parquet
    quoted: bool = True  # a field may be enclosed in quotation marks
    note: str = ""  # about the encoding, if it is not UTF-8, and about lines that are left out
    files: tuple[Path, ...] = ()  # of Parquet
    headless: bool = False  # True if the first line of ``raw`` is not in the file
    json: JsonTable | None = None  # of JSON lines

    @property
    def of_lines(self) -> bool:
        """True for a text, whose rows have lines and which is held in memory; False for Parquet."""
        return self.raw is not None or self.json is not None

    def has_texts(self, column: str) -> bool:
        """True if the file has types, by which a string of this column is a text, whatever it looks like."""
        return self.raw is None and (self.json is None or column not in self.json.mixed)

    @property
    def is_dsjson(self) -> bool:
        return self.json is not None and self.json.dsjson

    @property
    def items(self) -> TableFile | None:
        """The table of the items that the file has beside its decisions; None without one."""
        if self.json is None or self.json.items is None:
            return None
        return in_memory(self.path, self.json.items)

    @property
    def num_rows(self) -> int:
        return int(self.collect(self.scan(self.names[:1]).select(pl.len())).item())

    def rows(self, columns: Sequence[str]) -> pl.DataFrame:
        """The rows with these columns, strings for a text file. Raises UserError if it can't be parsed."""
        if self.json is not None:
            return self.json.frame.select(list(dict.fromkeys(columns)))
        with parsing(self.path):
            if self.raw is None:
                return pl.read_parquet(list(self.files), columns=list(columns), glob=False)
            places = sorted({self.names.index(name) for name in columns})
            try:
                frame = pl.read_csv(
                    self.raw,
                    columns=places,
                    separator=self.separator,
                    quote_char='"' if self.quoted else None,
                    infer_schema=False,
                )
            except pl.exceptions.PolarsError:
                self._refuse_long_row()
                raise
            frame.columns = [self.names[index] for index in places]
            return frame.select(list(dict.fromkeys(columns)))

    def line(self, row: int) -> int:
        """The line of a text file in which a row (from 1) begins, as an editor counts them."""
        if self.json is not None:
            return self.json.lines[row - 1]
        number = row + 1 - self.headless
        if self.quoted and b'"' in (self.raw or b""):  # a field in quotes may have several lines
            number = next((line for line, _ in itertools.islice(self._starts(), row, None)), number)
        return number

    def place(self, row: int) -> str:
        """The words for a row, from 1: its line in a text file, and its file among several of Parquet."""
        if self.of_lines:
            return f"line {self.line(row)}"
        if len(self.files) < 2:
            return f"row {row}"
        with parsing(self.path):
            for file in self.files:
                rows = pl.scan_parquet(file, glob=False).select(pl.len()).collect().item()
                if row <= rows:
                    break
                row -= rows
        return f"row {row} of {one_line(file.name)}"

    def _starts(self) -> Iterator[tuple[int, int]]:
        """The line in which each row of a text file begins, and its number of fields; the header first."""
        assert self.raw is not None
        text = io.TextIOWrapper(io.BytesIO(self.raw), encoding="utf-8", newline="")
        quote = '"' if self.quoted else None
        how: Literal[0, 3] = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        rows = csv.reader(text, delimiter=self.separator, quotechar=quote, quoting=how)
        start = 1 - self.headless
        with contextlib.suppress(csv.Error):
            for fields in rows:
                yield start, len(fields)
                start = rows.line_num + 1 - self.headless

    def _refuse_long_row(self) -> None:
        """Raise UserError for the first row with more fields than the header, if there is one."""
        for line, fields in self._starts():
            if fields > len(self.names):
                raise UserError(
                    f"{self.path} can't be parsed: line {line} has {fields} fields, and the header names "
                    f"{len(self.names)}: mend the line, or put texts with the separator in quotes."
                )

    def scan(self, columns: Sequence[str]) -> pl.LazyFrame:
        """``rows``, read in pieces if the file is Parquet."""
        if self.of_lines:
            return self.rows(columns).lazy()
        return pl.scan_parquet(list(self.files), glob=False).select(columns)

    def text(self, column: str) -> pl.Expr:
        """The values of the column in ``scan`` as ``texts`` gives them."""
        if self.raw is not None:
            return pl.col(column)
        with parsing(self.path):
            return _plain(column, self.scan([column]).collect_schema()[column])

    def texts(self, columns: Sequence[str]) -> pl.LazyFrame:
        """``scan``, with String in place of Categorical, Enum and Binary, also inside lists.

        Bytes that are not UTF-8 are written as \\xff.
        """
        with parsing(self.path):
            scan = self.scan(columns)
            return scan.with_columns(_plain(*column) for column in scan.collect_schema().items())

    def collect(self, scan: pl.LazyFrame) -> pl.DataFrame:
        """The rows of a scan, which is run piece by piece. Raises UserError if the file is damaged."""
        with parsing(self.path):
            return scan.collect(engine="streaming")


def _plain(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(kind, pl.Array):
        column, kind = column.arr.to_list(), pl.List(kind.inner)
    inner = kind.inner if isinstance(kind, pl.List) else kind
    wanted = pl.List(pl.String) if isinstance(kind, pl.List) else pl.String()
    if inner in (pl.Categorical, pl.Enum):
        return column.cast(wanted)
    if inner != pl.Binary:
        return column
    return column.map_batches(
        lambda series: pl.Series(series.name, _decoded(series.to_list()), dtype=wanted),
        wanted,
        is_elementwise=True,
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def in_memory(path: Path, frame: pl.DataFrame) -> TableFile:
    """A table of rows that are in memory; ``path``: the file that they come from."""
    return TableFile(path, tuple(frame.columns), json=JsonTable(frame, range(1, frame.height + 1)))


def open_table(path: str | Path, separator: str | None = None, headless: Sequence[str] = ()) -> TableFile:
    """Read the header of a file that ends in one of ``ENDINGS``, or of a folder of Parquet files.

    ``separator``: the text between two fields, or a word of ``WORDS``; None to find it in the first line.
    ``headless``: names of the columns of a file without a header; the file may have fewer. Raises UserError.
    """
    path = Path(path)
    if not path.is_file() and not path.is_dir():
        raise UserError(f"{path} is not a file: give the path of a file that ends in {', '.join(ENDINGS)}.")
    if path.is_dir() or path.name.lower().endswith(".parquet"):
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"{path} is empty: give a log with a header and at least one row.")
        check_used(("separator", separator is not None, f"{path} is Parquet"))
        with parsing(path):
            # Without glob=False, polars reads a[1].parquet as the pattern of a1.parquet.
            files = files_of(path)
            return TableFile(
                path, tuple(pl.scan_parquet(files, glob=False).collect_schema().names()), files=tuple(files)
            )
    if _is_json(path):
        if separator is not None:
            raise UserError(f"{path} has JSON lines, which have no separator: leave --separator out.")
        facts = path.stat()
        table = _json_table(path, facts.st_mtime_ns, facts.st_size)
        return TableFile(path, tuple(table.frame.columns), note=table.note, json=table)
    raw, note = _utf8(_text_of(path))
    first = raw[: (raw.find(b"\n") + 1) or len(raw)].decode().rstrip("\r\n")
    between = WORDS.get(separator, separator) if separator is not None else _separator(first)
    if len(between.encode()) > 1:
        raw, first = raw.replace(between.encode(), _UNIT.encode()), first.replace(between, _UNIT)
        between = _UNIT
    quoted = between in ",;|" or '"' in first
    fields = _fields(first, between, quoted, path)
    without = any(re.match(NUMBER, field) for field in fields)
    if without:
        if len(fields) > len(headless):
            raise UserError(
                f"{path} has {len(fields)} columns and no header (its first line holds numbers): give it a "
                "first line with the names of its columns."
            )
        fields = list(headless[: len(fields)])
        raw = between.join(fields).encode() + b"\n" + raw
        taken = f"without a header, so its columns are taken as {', '.join(fields)}"
        note = f"{note}; {taken}" if note else taken
    names = tuple(_TYPED.sub("", field) for field in fields)
    return TableFile(path, names, raw, between, quoted, note, headless=without)


ITEMS_OF = ".items.parquet"
"""The end of the name of a file with the items of a record, beside its export NAME.parquet."""


def items_beside(path: Path) -> Path:
    """The file with the items of a record, beside its export ``path``."""
    return path.with_name(f"{path.stem}{ITEMS_OF}")


def files_of(path: Path) -> list[Path]:
    """The Parquet files of a folder, by name, without hidden ones; ``path`` itself if it is not a folder.

    Files of items beside exports of a record (ITEMS_OF) are left out. Raises UserError for a folder without
    such files.
    """
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.glob("*.parquet")
        if file.is_file() and file.name[0] != "." and not file.name.endswith(ITEMS_OF)
    )
    if not files:
        raise UserError(
            f"{path} is not a file, and as a folder it has no files that end in .parquet: give a file, or a "
            "folder with such parts."
        )
    return files


def has_header(path: str | Path) -> bool:
    """False for a file that is not a log of decisions of `recsys-rl record`; true if there is no file.

    The first file of a folder counts. Raises UserError for a damaged Parquet file.
    """
    path = files_of(Path(path))[0] if Path(path).is_dir() else Path(path)
    if not path.is_file():
        return True  # the reader of such logs reports it
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return False
    with parsing(path):
        return DECISIONS in pl.read_parquet_metadata(path)


def is_own(log: object) -> bool:
    """True for paths of --log whose first is a table of people's own, and not a log of `recsys-rl record`."""
    first = log[0] if isinstance(log, tuple | list) and log else log
    return isinstance(first, str | Path) and bool(first) and not has_header(first)


def _is_json(path: Path) -> bool:
    """True if the text of the file begins with an object."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            return file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    except (OSError, EOFError, zlib.error):
        return False  # the reader of the text reports it


@functools.lru_cache(2)  # a command opens its log several times
def _json_table(path: Path, time: int, size: int) -> JsonTable:
    """The rows of JSON lines; ``time`` and ``size`` show that the file was written again."""
    return read_json_lines(path, _utf8(_text_of(path))[0])


def _utf8(raw: bytes) -> tuple[bytes, str]:
    """The text in UTF-8, and a note if it was not. Latin-1 fits always: each byte is a character."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1").encode(), "read as Latin-1, as it is not UTF-8"
    return raw, ""


def _text_of(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gunzip(raw, path)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} can't be read ({error_text(error)}): give a whole, readable file."
        ) from error
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if not raw:
        raise UserError(f"{path} is empty: give a log with a header and at least one row.")
    if b"\0" in raw:
        raise UserError(f"{path} holds NUL bytes, so it is not CSV text: export it again as UTF-8 CSV.")
    return raw


def _separator(line: str) -> str:
    """The separator of the first line: ``::``, a tab, else the most frequent of ``, ; |``, else a space."""
    for sure in ("::", "\t"):
        if sure in line:
            return sure
    likely = max(",;|", key=line.count)
    return likely if likely in line or " " not in line.strip() else " "


def _fields(line: str, separator: str, quoted: bool, path: Path) -> list[str]:
    with parsing(path):
        frame = pl.read_csv(
            io.BytesIO(line.encode() + b"\n"),
            has_header=False,
            separator=separator,
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
        return ["" if value is None else value.strip() for value in frame.row(0)]


@contextlib.contextmanager
def parsing(where: str | Path) -> Iterator[None]:
    """Turn a parser's error inside the block into a UserError about the file ``where``."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        quoted = re.sub(r"`(.*?)`", lambda match: short(match[1]), str(error), flags=re.DOTALL)
        reason = quoted.split("\n", 1)[0][:300]
        if "must end with PAR1" in reason:
            raise UserError(
                f"{where} can't be parsed: it is not a Parquet file, or not a whole one; give a whole one, "
                "such as the log of decisions that recsys-rl record writes."
            ) from error
        raise UserError(
            f"{where} can't be parsed ({reason}): give the whole file, as it was written."
        ) from error
