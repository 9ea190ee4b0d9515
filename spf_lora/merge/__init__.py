"""Merging adapters: plan from the headers, then execute module by module. See docs/merging.md."""
