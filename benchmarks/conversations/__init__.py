"""The benchmarks of conversations: sessions and what is said in them."""
