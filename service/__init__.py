"""The orchestrator: everything a request passes through."""
