"""What stands in a workspace and more than one module reads: one schema, one writer, one reader each."""
