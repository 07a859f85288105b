"""The benchmarks of agents and the tools that they call."""
