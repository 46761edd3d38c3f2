"""`recsys-rl data`: what a table holds, what can be learned from it, and how two tables differ."""
