"""Makes hostile files from sound ones: seeded edits of bytes, of texts and of what JSON holds."""

import copy
import json

TOKENS = [
    *(b"0", b"-1", b"1e999", b"-1e999", b"NaN", b"4294967296", b"9" * 400, b"1e-400", b"null"),
    *(b"true", b'""', b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"'", b"=", b".", b"#"),
    *(b"[" * 5000, b'{"a":' * 3000, b"a." * 3000, b"a = " * 9, b"\n", b"\x00", b"\xff\xfe"),
    *("\u202e".encode(), b"\xed\xa0\x80", b"\x1b[2J", b"../../../etc/passwd", b"*" * 300),
    b"a beard " * 300,
]
VALUES = [
    *(0, -1, 1, 2**63, 10**400, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan")),
    *(True, None, "", "\ud800", "\x00", "a" * 100_000, "../../x", "\x1b[2J", "nan", "1e999"),
    *([], {}, [[[[[]]]]], {"": ""}, [None] * 1000, {str(n): n for n in range(100)}),
]


def edited(data, rng):
    """Return bytes with one to four edits."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at - 1] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at - 1] = rng.randrange(256)
        elif kind == 2:
            data[at : at + rng.randrange(9)] = rng.choice(TOKENS)
        elif kind == 3:
            del data[at : at + rng.randint(1, 60)]
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            end = at + rng.randint(1, 200)
            data[at:at] = data[at:end] * rng.choice((1, 2, 50))
        else:  # a number of the file's own, as lengths and counts are
            width = rng.choice((2, 4, 8))
            value = rng.choice((0, 1, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1))
            data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, rng.choice(ORDERS))
    return bytes(data)


ORDERS = ("little", "big")


def changed(table, rng):
    """Return a copy of what JSON holds, with one to three places replaced, removed or doubled."""
    table = copy.deepcopy(table)
    for _ in range(rng.randint(1, 3)):
        inner = table
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.8:
                inner = inner[key]
                continue
            kind = rng.randrange(6)
            if kind < 4:
                inner[key] = copy.deepcopy(rng.choice(VALUES))
            elif kind == 4:
                del inner[key]
            elif isinstance(inner, dict):
                inner[rng.choice(("extra", "", "a\x00b", "\ud800"))] = copy.deepcopy(inner[key])
            else:
                inner.append(copy.deepcopy(inner[key]))
            break
    return table


def dumped(table):
    """Return JSON, with NaN and half characters where the table has them."""
    return json.dumps(table)
