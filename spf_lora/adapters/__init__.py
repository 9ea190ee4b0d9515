"""An adapter in memory: its modules, their arithmetic, and training on a model."""
