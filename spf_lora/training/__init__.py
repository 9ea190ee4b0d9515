"""The training loop: plain, resumable, the same file for the same recipe and seed."""
