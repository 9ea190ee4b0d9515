"""The `spf-lora` command: one thin file per command; torch is imported inside, never above."""
