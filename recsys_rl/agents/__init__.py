"""Everything that decides, one file per algorithm; none imports another."""
