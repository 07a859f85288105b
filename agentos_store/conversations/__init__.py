"""Users and sessions: the tables that tasks and agents refer to."""
