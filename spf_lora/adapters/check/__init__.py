"""What a file is and whether each app reads it as meant."""
