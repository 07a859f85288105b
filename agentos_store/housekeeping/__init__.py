"""What the store remembers of its own upkeep: maintenance runs and imports."""
