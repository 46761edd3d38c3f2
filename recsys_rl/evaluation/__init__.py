"""The table of policies: its players, its numbers, its printing, and sample sessions for the report."""
