"""Train, measure, stack and merge attribute LoRAs for Stable Diffusion 1.5."""

__version__ = "0.1.0"
