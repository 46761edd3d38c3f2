"""Networks. They depend on shapes, not on algorithms."""
