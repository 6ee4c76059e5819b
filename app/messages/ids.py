"""Ids: prefix + `_` + 26 lower-case Crockford base32 characters (128 bits). What a request creates gets a UUIDv7 (app/instance.py); everything else
derives from its cause, so that a repeat yields the same id. `-` stays free for the Kafka key."""

import hashlib
import re

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_SHAPE = re.compile(rf"([a-z]{{2,3}})_([0-7][{ALPHABET}]{{25}})")


def base32(sixteen: bytes) -> str:
    """128 bits as 26 characters, most significant first (RFC-less Crockford; the first character is 0–7)."""
    number = int.from_bytes(sixteen, "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def from_base32(text: str) -> bytes:
    """The inverse of base32. Raises ValueError."""
    number = 0
    for character in text:
        number = number << 5 | ALPHABET.index(character)
    return number.to_bytes(16, "big")


def named(prefix: str, sixteen: bytes) -> str:
    return f"{prefix}_{base32(sixteen)}"


def digest(*parts: str | bytes) -> bytes:
    """First 16 bytes of SHA-256 over the parts, length-prefixed so that no two lists collide."""
    whole = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode()
        whole.update(len(raw).to_bytes(4, "big") + raw)
    return whole.digest()[:16]


def derived(prefix: str, *parts: str | bytes) -> str:
    """The id of what these parts cause: equal parts, equal id."""
    return named(prefix, digest(*parts))


def is_id(text: str, prefix: str) -> bool:
    """Well formed and of this kind. A malformed id is an unknown id."""
    found = _SHAPE.fullmatch(text)
    return found is not None and found[1] == prefix
