"""What is trained on: portraits, folders of pictures, captions."""
