"""What makes units of work run: publishing, executing once at a time, and healing what was lost."""
