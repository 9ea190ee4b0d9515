"""Captions in sentences: recognised, and the target taken out."""
