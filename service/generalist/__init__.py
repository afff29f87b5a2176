"""The vision-language model that arbitrates: prompts, engines, checkpoints."""
