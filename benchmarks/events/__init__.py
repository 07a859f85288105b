"""The benchmarks of events."""
