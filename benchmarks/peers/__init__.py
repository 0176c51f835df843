"""What others train with, measured beside lhcq: each in an environment and a process of its own."""
