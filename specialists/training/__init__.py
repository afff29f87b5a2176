"""Fine-tuning and evaluation of specialists."""
