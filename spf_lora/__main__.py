"""`python -m spf_lora` is the `spf-lora` command."""

from spf_lora.cli.app import main

if __name__ == "__main__":
    main()
