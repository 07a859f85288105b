"""Governance: the verdicts of guardians, and the inbox of the supervisor."""
