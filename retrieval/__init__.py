"""Nearest reference cases: queried by vector, never by image."""
