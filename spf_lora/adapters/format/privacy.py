"""Finds local paths in text that is about to be published."""

import re

# a home or drive folder: /home/x, /Users/x, /root/x, /mnt/x, C:\x, \\server\share, file:///x, ~/x
_LOCAL_PATH = re.compile(
    r"(?:file:/*|(?<![\w:/.])[A-Za-z]:[\\/]|(?<![\w\\])\\\\[\w.$-]+\\"
    r"|(?<![\w:/.])/(?:home|Users|root|mnt|media|tmp|var|opt|data|workspace|content|kaggle)/"
    r"|(?<![\w/])~/)[^\s\"',;|]*"
)


def leaks(text: str) -> list[str]:
    """Return the local paths that a text holds."""
    return [match[0] for match in _LOCAL_PATH.finditer(text)]


def without_leaks(text: str) -> str:
    """Return the text with every local path cut down to its last part."""
    return _LOCAL_PATH.sub(lambda match: re.split(r"[\\/]+", match[0].rstrip("\\/"))[-1], text)
