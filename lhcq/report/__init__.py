"""Reporting: one self-contained page about a run."""
