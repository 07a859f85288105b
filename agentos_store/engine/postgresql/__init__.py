"""PostgreSQL: a server, many writers at a time."""
