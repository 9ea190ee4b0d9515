"""The objective: pure functions and the dual path they are computed from."""
