"""What people and monitors see of the work: logs, traces, metrics, where one unit stands."""
