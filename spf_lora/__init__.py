"""Train, measure, stack and merge pollution-free attribute LoRAs for Stable Diffusion 1.5."""

__version__ = "0.1.0"
