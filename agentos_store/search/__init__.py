"""Full-text search: one tokenizer and one query language over the index of either database."""
