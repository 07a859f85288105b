"""What operators call: status, and later health, backup, pruning. It uses the backend through sessions only."""
