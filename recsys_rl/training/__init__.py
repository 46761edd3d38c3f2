"""A run: its state, its folder, its log and the processes that train it."""
