"""Adapter files: every known layout, read and written, and what a file says of itself."""
