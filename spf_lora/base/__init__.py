"""Base models: what an adapter is trained on."""
