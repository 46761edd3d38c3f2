"""The version of the package. All may import this module, as it imports nothing."""

__version__ = "0.1.0"
