"""Training of MedDr-nano."""
