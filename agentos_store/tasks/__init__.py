"""Tasks, their lineage, and their audit trail."""
