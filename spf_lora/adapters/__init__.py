"""Adapter files: one canonical form in memory, every layout on disk."""
