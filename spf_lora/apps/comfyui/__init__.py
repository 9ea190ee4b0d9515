"""Nodes for ComfyUI: `pack` is copied into it, `install` copies."""
