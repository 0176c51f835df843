"""Evaluation: scores on disk, the figures made of them, and the boosted trees to compare with."""
