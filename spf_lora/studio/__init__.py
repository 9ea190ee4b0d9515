"""A local browser page over the library and the command line (`spf-lora studio`)."""
