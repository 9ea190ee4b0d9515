"""Results for readers: the HTML page, curves, picture strips, a summary."""
