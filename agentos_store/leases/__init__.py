"""Leases: who may work on what, for how long."""
