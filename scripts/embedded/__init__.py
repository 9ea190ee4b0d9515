"""How the embedded base is made: one module per stage, run by `scripts/build_embedded_base.py`."""
