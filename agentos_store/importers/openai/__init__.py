"""Transcripts of conversations in OpenAI's format."""
