"""Projects and their repositories."""
