"""How much an adapter pollutes: protocol, metrics, report. See docs/evaluation.md."""
