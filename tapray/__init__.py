"""tapray: time arrow prediction for live-cell movies, on Ray."""

__version__ = "0.1.0"
