"""C code used by all agents or all platforms, and the module that loads it."""
