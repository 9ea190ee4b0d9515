"""One text and one digest for a table of settings, whichever file or option said them."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Return the one JSON text for a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def table_hash(table: Any) -> str:
    """Return the sha256 of a table's canonical JSON."""
    return hashlib.sha256(canonical_json(table).encode()).hexdigest()
