"""Chapter 14's agent store: the SQLite database of document 004."""
