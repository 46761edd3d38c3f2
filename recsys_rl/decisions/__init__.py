"""The log of decisions: its rows, its file, its checks, and the tables of decisions that people have."""
