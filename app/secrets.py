"""DOOR: what is secret, sealed and opened, made and checked. Nothing here is ever in a repr, a log or an error.

A credential is sealed with a data key of its own (AES-256-GCM), which is sealed with the master key; both are bound to gateway and credential id, so a row copied elsewhere
does not open. The master key's id stands in front, so that keys can rotate. Bearer tokens are kept as a look-up part and an HMAC.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets as chance
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import Misconfigured
from app.messages.ids import ALPHABET

TEXT_MAX = 4096  # Of a key's text: one of RSA_BITS_MAX has 3,500 characters. Reading one costs time with the cube of its size.
RSA_BITS_MAX, BCRYPT_ROUNDS_MAX, PBKDF2_ITERATIONS_MAX = 4096, 100, 1_000_000  # About a second each.
_ONE_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----\n((?:Proc-Type: [^\n-]*\nDEK-Info: [A-Z0-9-]+,[0-9A-F]+\n)?[^-]*)-----END \1PRIVATE KEY-----\n")
_PBES2 = re.compile(rb"\x30(?>\x82..|\x81.|.)\x30.\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d\x30.\x30.\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c\x30.\x04(.)", re.DOTALL)
LOOKUP, SECRET = 12, 52


class BadKey(ValueError):
    """A key text that cannot be taken; `code` is an API field code. The text never contains the key."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True)
class SshKey:
    private: bytes = field(repr=False)
    public: str
    fingerprint: str


# ---- sealing ------------------------------------------------------------------------------------------------------------------------------------------
def master_key(text: str) -> bytes:
    """64 hex digits. Raises Misconfigured without showing them."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise Misconfigured("AIRAVATA_MASTER_KEY (or …_FILE): 64 hex digits are wanted")
    return key


def key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"airavata key id" + key).digest()[:8]


def seal(secret: bytes, *, master: bytes, gateway_id: str, credential_id: str) -> bytes:
    """Key id (8) · nonce (12) · sealed data key (48) · nonce (12) · sealed secret."""
    bound = f"{gateway_id}/{credential_id}".encode()
    data_key, outer, inner = AESGCM.generate_key(256), os.urandom(12), os.urandom(12)
    return key_id(master) + outer + AESGCM(master).encrypt(outer, data_key, bound) + inner + AESGCM(data_key).encrypt(inner, secret, bound)


def open_sealed(sealed: bytes, *, master: bytes, gateway_id: str, credential_id: str) -> bytes:
    """Raises Misconfigured when the master key is another one or the row was moved."""
    bound = f"{gateway_id}/{credential_id}".encode()
    if sealed[:8] != key_id(master):
        raise Misconfigured(f"credential {credential_id} was sealed with another master key")
    try:
        data_key = AESGCM(master).decrypt(sealed[8:20], sealed[20:68], bound)
        return AESGCM(data_key).decrypt(sealed[68:80], sealed[80:], bound)
    except InvalidTag as fault:
        raise Misconfigured(f"credential {credential_id} does not open: its row was changed or moved") from fault


# ---- SSH keys -----------------------------------------------------------------------------------------------------------------------------------------
def generate_ssh_key(comment: str) -> SshKey:
    return _described(ed25519.Ed25519PrivateKey.generate(), comment)


def import_ssh_key(text: str, passphrase: str | None, comment: str) -> SshKey:
    """Ed25519, ECDSA and RSA of 2048 to 4096 bits, OpenSSH or PEM. What reading it would cost is known before it is read. Raises BadKey."""
    if len(text) > TEXT_MAX:
        raise BadKey("too_long", f"at most {TEXT_MAX} characters")
    if "PRIVATE KEY" not in text:
        raise BadKey("bad_format", "a private key is wanted (OpenSSH or PEM); a public key is not one")
    raw, password = "".join(f"{line}\n" for line in text.strip().splitlines()).encode(), passphrase.encode() if passphrase else None
    load = serialization.load_ssh_private_key if b"OPENSSH" in raw else serialization.load_pem_private_key
    try:
        _refuse_costly(raw)
        key = load(raw, password)
    except BadKey:
        raise
    except (IndexError, ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey("bad_format", "the key cannot be read: is it whole, and is the passphrase right?") from None
    if isinstance(key, rsa.RSAPrivateKey) and not 2048 <= key.key_size <= RSA_BITS_MAX:
        raise BadKey("not_allowed", f"RSA keys have 2048 to {RSA_BITS_MAX} bits here")
    if not isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise BadKey("not_allowed", "Ed25519, ECDSA or RSA is wanted")
    return _described(key, comment)


def _refuse_costly(raw: bytes) -> None:
    """How often a passphrase is hashed stands in the key, and its sender chose it. One block, as `ssh-keygen` and `openssl` write it, so that we read what the library will. Raises BadKey, ValueError."""
    if (found := _ONE_BLOCK.fullmatch(raw)) is None:
        raise ValueError("not one block")
    kind, bare = found[1], b"".join(found[2].split())
    if kind == b"OPENSSH ":
        blob, at, options = base64.b64decode(bare, validate=True), len(b"openssh-key-v1\0"), b""
        for _cipher_kdf_options in range(3):
            size = int.from_bytes(blob[at : at + 4])
            options, at = blob[at + 4 : at + 4 + size], at + 4 + size
        times, most = int.from_bytes(options[-4:]), BCRYPT_ROUNDS_MAX
    elif kind == b"ENCRYPTED ":
        der = base64.b64decode(bare, validate=True)
        if (head := _PBES2.match(der)) is None or der[(at := head.end() + head[1][0])] != 2:  # An INTEGER follows the salt.
            raise BadKey("not_allowed", "a passphrase is taken as PBES2 with PBKDF2 (what `ssh-keygen` and `openssl` write)")
        times, most = int.from_bytes(der[at + 2 : at + 2 + der[at + 1]]), PBKDF2_ITERATIONS_MAX
    else:
        return
    if times > most:
        raise BadKey("not_allowed", f"its passphrase is hashed {times} times, at most {most} are taken")


def _described(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, comment: str) -> SshKey:
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return SshKey(private, f"{public} {comment}", "SHA256:" + base64.b64encode(digest).decode().rstrip("="))


# ---- bearer tokens --------------------------------------------------------------------------------------------------------------------------------------
def new_token() -> tuple[str, str]:
    """(whole token, look-up part): `airv_<12>_<52>`, 256 random bits in the second part. Shown once."""
    lookup = "".join(chance.choice(ALPHABET) for _ in range(LOOKUP))
    return f"airv_{lookup}_" + "".join(chance.choice(ALPHABET) for _ in range(SECRET)), lookup


def lookup_of(token: str) -> str | None:
    """The look-up part of a well-formed token."""
    prefix, _, rest = token.partition("_")
    lookup, _, secret = rest.partition("_")
    return lookup if prefix == "airv" and len(lookup) == LOOKUP and len(secret) == SECRET else None


def token_digest(token: str, key: bytes) -> bytes:
    return hmac.new(key, token.encode(), hashlib.sha256).digest()


def same(one: bytes, other: bytes) -> bool:
    """In constant time."""
    return hmac.compare_digest(one, other)
