"""The tasks themselves, one module a stage, each thin: its wire name, its arguments, one call."""
