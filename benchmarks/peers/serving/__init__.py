"""Other servers around the scoring function of ours, without a record; one file each."""
