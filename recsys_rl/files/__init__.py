"""People's files: read, find columns, parse times, clean, describe."""
