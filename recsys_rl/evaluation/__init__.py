"""The table that commands print and pages show: its players, its numbers, sample sessions."""
