"""People's files and logs of decisions: columns, readers, writers, checks."""
