"""Times as people write them, in seconds since 1970.

Numbers are seconds, milliseconds, microseconds or nanoseconds, by their size. Texts are ISO, or begin with
the day or the month: with points the day is first (31.12.2020), else the column must show the order by a
number above 12 (12/31/2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

_CLOCK = r"(?:[T ,]+(?<hour>\d{1,2}):(?<minute>\d{2})(?::(?<second>\d{2}(?:[.,]\d+)?))?)?"
_ZONE = r"(?<zone>Z|z|UTC|GMT|[+-]\d{2}:?(?:\d{2})?)?"
_ISO = rf"^\s*(?<year>\d{{4}})[-/](?<month>\d{{1,2}})[-/](?<day>\d{{1,2}}){_CLOCK}\s*{_ZONE}\s*$"
_DAY = (
    rf"^\s*(?<first>\d{{1,2}})(?<sign>[./-])(?<other>\d{{1,2}})[./-](?<year>\d{{4}}){_CLOCK}"
    rf"\s*(?<half>[AaPp][Mm])?\s*{_ZONE}\s*$"
)
# The unit of numbers of which at least half are this large: 1e11 s is the year 5138, and 1e11 ms is 1973.
_UNITS = ((1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds"))

ISO, DAY, MONTH, EITHER, BOTH = "year first", "day first", "month first", "either", "both"
"""The order of day, month and year in a column of texts."""
RULE = (
    "times are numbers of at most 64 bits, dates, or texts such as 2024-05-01T12:00:00Z or 31.12.2024 12:00"
)
UNCLEAR = {
    EITHER: "such times may begin with the day or with the month, and no row shows which: write them as "
    "2024-05-01",
    BOTH: "some of these times begin with the day and others with the month: write them as 2024-05-01",
}


@dataclass(frozen=True)
class TimeFormat:
    """The format of the times in a column, found once for the whole column, also if it is read in pieces."""

    order: str | None = None  # of day, month and year in texts; None if the column holds numbers
    unit: str = "seconds"  # of numbers
    whole_numbers: bool = False  # True if all of them are whole numbers

    @property
    def per_second(self) -> float:
        """Units in a second."""
        return {unit: parts for _, parts, unit in _UNITS}.get(self.unit, 1.0)

    @property
    def rule(self) -> str:
        """The rule of a time, after a wrong value."""
        return UNCLEAR.get(self.order or "", RULE)

    @property
    def note(self) -> str:
        """The format in words; empty for ISO texts and seconds."""
        if self.order is None:
            return "" if self.unit == "seconds" else f"times in {self.unit}"
        which = {DAY: "day", MONTH: "month"}.get(self.order)
        return "" if which is None else f"times read as {which} first"


def format_of(scan: pl.LazyFrame, column: str) -> TimeFormat:
    """The format of a column."""
    facts = _facts(pl.col(column), scan.collect_schema()[column])
    return _format(scan.select(facts).collect(engine="streaming"))


def format_in(column: pl.Series) -> TimeFormat:
    """The format of a column in memory."""
    return format_of(column.to_frame("x").lazy(), "x")


def _facts(column: pl.Expr, kind: pl.DataType) -> list[pl.Expr]:
    """Numbers of the column that show its format, for each kind of column others."""
    columns = []
    if kind == pl.String:
        points = column.str.extract(_DAY, 2) == "."
        first, second = (
            pl.when(~points).then(column.str.extract(_DAY, k).cast(pl.Int64)).max() for k in (1, 3)
        )
        iso = column.str.contains(_ISO).any()
        columns = [
            first.alias("first"),
            second.alias("second"),
            points.any().alias("points"),
            iso.alias("iso"),
        ]
    elif not kind.is_numeric():
        return [pl.lit(True).alias("iso")]
    numbers = column.cast(pl.Float64, strict=False).abs()
    sound = numbers.is_not_nan() & (numbers < 2.0**63)
    enough = [((numbers >= least) & sound).sum().alias(unit) for least, _, unit in _UNITS]
    exact = pl.lit(False) if kind.is_float() else column.cast(pl.Int64, strict=False).is_not_null().all()
    return [*columns, sound.sum().alias("numbers"), exact.alias("whole_numbers"), *enough]


def _format(facts: pl.DataFrame) -> TimeFormat:
    row = facts.row(0, named=True)
    first, second = row.get("first"), row.get("second")
    if first is not None and second is not None:
        if first > 12 and second > 12:
            return TimeFormat(BOTH)
        if first > 12 or second > 12:
            return TimeFormat(DAY if first > 12 else MONTH)
        return TimeFormat(EITHER)
    if row.get("points") or row.get("iso"):
        return TimeFormat(DAY if row.get("points") else ISO)
    half = max(1, row["numbers"] / 2)
    unit = next((unit for _, _, unit in _UNITS if row[unit] >= half), "seconds")
    return TimeFormat(None, unit, row["whole_numbers"])


def seconds(cells: pl.Expr, kind: pl.DataType, form: TimeFormat) -> pl.Expr:
    """Seconds as Int64, or as Float64 with fractions; null for a value without a time.

    A time is of the format of the column. The caller cuts fractions off after sorting.
    """
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        epoch = (
            cells.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
            if kind == pl.Date
            else cells.dt.epoch("us") / 1e6
        )
    elif kind == pl.String and form.order is not None:
        epoch = _seconds(cells, form.order)
    elif kind == pl.String or kind.is_numeric():
        epoch = cells.cast(pl.Int64 if form.whole_numbers else pl.Float64, strict=False)
        if form.whole_numbers and form.per_second == 1:
            return epoch
        epoch = epoch / form.per_second if form.per_second > 1 else epoch
    else:
        return pl.lit(None, dtype=pl.Float64)
    return pl.when(epoch.abs() < 2.0**63).then(epoch)


def _seconds(text: pl.Expr, order: str) -> pl.Expr:
    """Seconds since 1970 of texts; UTC where they name no zone, null where one is unclear or not a time."""
    iso, turned = (text.str.extract_groups(pattern).struct.field for pattern in (_ISO, _DAY))
    piece = {name: iso(name) for name in ("year", "month", "day", "hour", "minute", "second", "zone")}
    if order != ISO:
        by_day, first, other = (turned("sign") == ".") | (order == DAY), turned("first"), turned("other")
        of_day = {
            "day": pl.when(by_day).then(first).when(order == MONTH).then(other),
            "month": pl.when(by_day).then(other).when(order == MONTH).then(first),
            "hour": _of_day(turned("hour").cast(pl.Int64), turned("half").str.to_lowercase()).cast(pl.String),
        }
        of_day |= {name: turned(name) for name in ("year", "minute", "second", "zone")}
        piece = {name: pl.coalesce(text, of_day[name]) for name, text in piece.items()}
    date = pl.concat_str(piece["year"], piece["month"].str.zfill(2), piece["day"].str.zfill(2), separator="-")
    hour, minute = (piece[name].cast(pl.Int64).fill_null(0) for name in ("hour", "minute"))
    second = piece["second"].str.replace(",", ".").cast(pl.Float64).fill_null(0.0)
    digits = piece["zone"].str.replace_all(r"[^0-9]", "")
    ahead = 3600 * digits.str.slice(0, 2).cast(pl.Int64, strict=False).fill_null(0)
    ahead += 60 * digits.str.slice(2, 2).cast(pl.Int64, strict=False).fill_null(0)
    sign = pl.when(piece["zone"].str.starts_with("-")).then(-1).otherwise(1)
    days = date.str.to_date("%Y-%m-%d", strict=False).dt.epoch("s")
    sound = (hour < 24) & (minute < 60) & (second < 61)
    return pl.when(sound).then(days + 3600 * hour + 60 * minute + second - sign * ahead)


def _of_day(hour: pl.Expr, half: pl.Expr) -> pl.Expr:
    """The hour from 0 of one with am or pm (``half``); 99 if that is impossible."""
    twelve = (
        pl.when(hour.is_between(1, 12)).then(hour % 12 + 12 * (half == "pm").cast(pl.Int64)).otherwise(99)
    )
    return pl.when(half.is_null() | hour.is_null()).then(hour).otherwise(twelve)
