"""Workers that claim tasks of one queue."""
