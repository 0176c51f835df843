"""Evaluation: the metrics of scores, what validations mean, and the boosted trees to compare with."""
