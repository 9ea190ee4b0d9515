"""Recipes: everything that decides a training, as TOML and as frozen dataclasses."""
