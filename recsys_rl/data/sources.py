"""The one dispatcher from the name that a user gives to a log."""

from __future__ import annotations

from recsys_rl.data import kuairec, movielens
from recsys_rl.data.log import RATING_COLUMN, TIME_COLUMN, read_log
from recsys_rl.types import InteractionLog, UserError

FILE_ENDINGS = (".csv", ".csv.gz", ".parquet")


def load_log(
    data: str = "movielens",
    data_dir: str | None = None,
    cache_dir: str | None = None,
    user_column: str = "user",
    item_column: str = "item",
    time_column: str = TIME_COLUMN,
    rating_column: str = RATING_COLUMN,
) -> InteractionLog:
    """Load a dataset by name, or a CSV/Parquet file by path; the arguments are fields of DataConfig.

    Raises UserError.
    """
    is_file = data.lower().endswith(FILE_ENDINGS)
    if is_file and data_dir is not None:
        raise UserError(
            f"--data-dir {data_dir} is for named datasets, and --data {data} is a file: leave one out."
        )
    if data in movielens.NAMES:
        return movielens.load_movielens(data, data_dir, cache_dir)
    if data == "kuairec":
        return kuairec.load_kuairec(data_dir, cache_dir).history
    if is_file:
        return read_log(data, user_column, item_column, time_column, rating_column)
    raise UserError(
        f"There is no data named {data!r}: choose {', '.join(movielens.NAMES)}, kuairec, synthetic, "
        f"clustered, or the path of a file that ends in {', '.join(FILE_ENDINGS)} or .npy."
    )
