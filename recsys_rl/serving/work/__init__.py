"""The thread of the worker: requests under way, feedback, the release and its watch, limits before it."""
