"""Collision events: the LHC Olympics file layout, what a file holds, and generation with Pythia 8."""
