"""Networks that know shapes, not algorithms."""
