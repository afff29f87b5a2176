"""The panel: ten fine-tuned backbones that predict and embed. Knows nothing of HTTP or SQL."""
