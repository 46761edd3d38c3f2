"""Sources of users and items, one file each."""

# A name that begins with a dot is a file ending.
SOURCES = {
    "movielens": "recsys_rl.data.movielens:SOURCE",
    "ml-100k": "recsys_rl.data.movielens:SOURCE",
    "ml-latest-small": "recsys_rl.data.movielens:SOURCE",
    "ml-1m": "recsys_rl.data.movielens:SOURCE",
    "ml-25m": "recsys_rl.data.movielens:SOURCE",
    "ml-32m": "recsys_rl.data.movielens:SOURCE",
    "kuairec": "recsys_rl.data.kuairec:SOURCE",
    "kuairand": "recsys_rl.data.kuairand:SOURCE",
    "synthetic": "recsys_rl.data.synthetic:SOURCE",
    "clustered": "recsys_rl.data.clustered:SOURCE",
    ".csv": "recsys_rl.data.log:SOURCE",
    ".csv.gz": "recsys_rl.data.log:SOURCE",
    ".tsv": "recsys_rl.data.log:SOURCE",
    ".tsv.gz": "recsys_rl.data.log:SOURCE",
    ".dat": "recsys_rl.data.log:SOURCE",
    ".dat.gz": "recsys_rl.data.log:SOURCE",
    ".txt": "recsys_rl.data.log:SOURCE",
    ".txt.gz": "recsys_rl.data.log:SOURCE",
    ".inter": "recsys_rl.data.log:SOURCE",
    ".inter.gz": "recsys_rl.data.log:SOURCE",
    ".data": "recsys_rl.data.log:SOURCE",
    ".data.gz": "recsys_rl.data.log:SOURCE",
    ".parquet": "recsys_rl.data.log:SOURCE",
    ".npy": "recsys_rl.data.table:SOURCE",
}
