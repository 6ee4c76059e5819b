"""What reading a private key costs is known, and bounded, before it is read: its size, and how often its passphrase is hashed."""

import base64
import re

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from app.secrets import BadKey, import_ssh_key

PEM, NONE = serialization.Encoding.PEM, serialization.NoEncryption()
FORMATS = serialization.PrivateFormat
ED25519, ECDSA = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1())  # RSA: tests/integration/test_api_access.py.
SEALED = serialization.BestAvailableEncryption(b"right")


def text(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, form: FORMATS, sealed: serialization.KeySerializationEncryption = NONE) -> str:
    return key.private_bytes(PEM, form, sealed).decode()


def openssh_hashed(rounds: int) -> str:
    """A sealed key that says it was hashed so often."""
    head, *lines, tail = text(ED25519, FORMATS.OpenSSH, SEALED).split("\n")[:-1]
    blob = base64.b64decode("".join(lines))
    at = blob.index(b"bcrypt") + 6 + 4 + 4 + int.from_bytes(blob[blob.index(b"bcrypt") + 10 :][:4])
    return "\n".join([head, base64.b64encode(blob[:at] + rounds.to_bytes(4) + blob[at + 4 :]).decode(), tail])


def tlv(tag: int, value: bytes) -> bytes:
    return bytes([tag]) + (bytes([len(value)]) if len(value) < 128 else b"\x82" + len(value).to_bytes(2)) + value


def pkcs8_hashed(iterations: int, kdf: str = "2a864886f70d01050c") -> str:
    """Of RFC 8018: PBES2 with PBKDF2 (or another function) and AES-256-CBC."""
    number = tlv(2, iterations.to_bytes(iterations.bit_length() // 8 + 1))
    derived = tlv(0x30, tlv(6, bytes.fromhex(kdf)) + tlv(0x30, tlv(4, b"s" * 16) + number + tlv(0x30, tlv(6, bytes.fromhex("2a864886f70d0209")) + tlv(5, b""))))
    cipher = tlv(0x30, tlv(6, bytes.fromhex("60864801650304012a")) + tlv(4, b"i" * 16))
    whole = tlv(0x30, tlv(0x30, tlv(6, bytes.fromhex("2a864886f70d01050d")) + tlv(0x30, derived + cipher)) + tlv(4, b"x" * 160))
    return f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{base64.b64encode(whole).decode()}\n-----END ENCRYPTED PRIVATE KEY-----"


@pytest.mark.parametrize("form", [FORMATS.OpenSSH, FORMATS.PKCS8, FORMATS.TraditionalOpenSSL])
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_ssh_keygen_and_openssl_write_is_taken(form: FORMATS, sealed: bool, line_end: str) -> None:
    given = text(ECDSA, form, SEALED if sealed else NONE).replace("\n", line_end)
    assert import_ssh_key(given, "right" if sealed else None, "c").public.startswith("ecdsa-sha2-nistp521 ")


@pytest.mark.parametrize(
    "given",
    [openssh_hashed(101), openssh_hashed(4_000_000_000), pkcs8_hashed(1_000_001), pkcs8_hashed(100_000_000), pkcs8_hashed(1024, "2b06010401da470b"), pkcs8_hashed(1024, "2b06010401da47040b")],
    ids=["bcrypt a little", "bcrypt for hours", "PBKDF2 a little", "PBKDF2 for minutes", "another function", "scrypt"],
)
def test_a_passphrase_that_is_hashed_too_often_is_refused_before_it_is_hashed_once(given: str) -> None:
    with pytest.raises(BadKey) as caught:
        import_ssh_key(given, "right", "c")
    assert caught.value.code == "not_allowed"


def test_the_most_that_is_taken_is_read() -> None:
    for given in (openssh_hashed(1), pkcs8_hashed(1)):
        with pytest.raises(BadKey) as caught:  # Read to its end, and no key in it.
            import_ssh_key(given, "right", "c")
        assert caught.value.code == "bad_format"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (text(ECDSA, FORMATS.PKCS8) + text(ECDSA, FORMATS.PKCS8)[:100], "bad_format"),
        ("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + pkcs8_hashed(100_000_000), "bad_format"),
        (re.sub("ENCRYPTED PRIVATE KEY(-----)$", r"PRIVATE KEY\1", pkcs8_hashed(100_000_000)), "bad_format"),
        (pkcs8_hashed(100_000_000).replace("-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1), "bad_format"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----", "not_allowed"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nMA==\n-----END OPENSSH PRIVATE KEY-----", "bad_format"),
        ("-----BEGIN RSA PRIVATE KEY-----\n" + "A" * 4096 + "\n-----END RSA PRIVATE KEY-----", "too_long"),
    ],
    ids=["a half more", "another block first", "labels that differ", "headers of another form", "nothing sealed", "nothing inside", "a large one"],
)
def test_what_is_not_one_whole_block_is_refused_unread(given: str, code: str) -> None:
    with pytest.raises(BadKey) as caught:
        import_ssh_key(given, "right", "c")
    assert caught.value.code == code
