"""Worlds whose truth is known: portraits drawn by a program."""
