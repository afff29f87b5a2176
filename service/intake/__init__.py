"""Bytes from outside become a Case, or one clear refusal."""
