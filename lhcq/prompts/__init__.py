"""Prompts: which events go into which part of a split, and how they read. Needs neither fastjet nor torch."""
