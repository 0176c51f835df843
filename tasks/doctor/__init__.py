"""What `lhcq doctor` looks at."""
