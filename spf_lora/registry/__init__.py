"""Folders of adapters on disk: names, stacks, what an adapter is trained onto, locks."""
