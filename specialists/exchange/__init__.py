"""Specialists that come from elsewhere and go elsewhere: weights and words, never code or names."""
