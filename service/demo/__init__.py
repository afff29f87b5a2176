"""Procedural images with known truth, for demonstrations and tests."""
