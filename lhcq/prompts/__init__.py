"""Prompts: which events go into which subset of a split, and how they read. Needs neither fastjet nor torch."""
