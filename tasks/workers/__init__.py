"""Processes: a worker's life, the local ones of a command, Flower."""
