"""The version of the package. All may import this module, as it imports nothing."""

__version__ = "0.2.0"
