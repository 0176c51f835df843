"""Jobs on disk: what was asked for, what is left to do, who is at it, how often it was tried."""
