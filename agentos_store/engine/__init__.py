"""Engines: connections, transactions, the queue of writers, and what their faults mean."""
