"""The Celery side of lhcq: the application is `tasks.app`; nothing is imported here."""
