"""Knowledge: sources, their chunks, and embeddings."""
