"""What the commands print and the pages show: players of the table, its numbers, sample sessions."""
