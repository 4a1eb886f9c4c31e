"""Sessions without a table: signed cookies, one-time launch tokens, and a password for `--lan`.

A session is `id.expiry.signature`, signed with a key in Etude's data folder, so that a tab outlives
a restart of the server. The CSRF token of a session is a signature of its id. A launch token is
`time.nonce.signature`, signed with a key that lasts as long as the server, and is accepted once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SESSION_SECONDS = 30 * 86400
LAUNCH_SECONDS = 600
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}


@dataclass(frozen=True)
class Session:
    """A browser that was let in."""

    id: str
    csrf: str
    """What unsafe requests of this session must carry."""


class Sessions:
    """Makes and checks sessions.

    Args:
        key: signs sessions; outlives the server.
        launch_key: signs launch tokens; the server's own.
        clock: seconds since 1970.
    """

    def __init__(
        self, key: bytes, launch_key: bytes, clock: Callable[[], float] = time.time
    ) -> None:
        self._key, self._launch_key, self._clock = key, launch_key, clock
        self._used: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(self) -> str:
        """Return the cookie of a new session."""
        body = f"{secrets.token_hex(16)}.{int(self._clock()) + SESSION_SECONDS}"
        return f"{body}.{_sign(self._key, 'session', body)}"

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None if it is forged or has ended."""
        body, _, signature = cookie.rpartition(".")
        if not _matches(signature, _sign(self._key, "session", body)):
            return None
        name, _, expiry = body.partition(".")
        if int(expiry) < self._clock():
            return None
        return Session(name, _sign(self._key, "csrf", name))

    def secret(self, purpose: str) -> str:
        """Return a text that nobody can guess, the same for as long as the key is."""
        return _sign(self._key, "secret", purpose)[:32]

    def accept(self, token: str) -> bool:
        """Return whether a launch token is genuine, recent and not yet used; it is used now."""
        body, _, signature = token.rpartition(".")
        if not _matches(signature, _sign(self._launch_key, "launch", body)):
            return False
        now, made = self._clock(), int(body.partition(".")[0])
        with self._lock:
            self._used = {one: at for one, at in self._used.items() if at > now - LAUNCH_SECONDS}
            if made < now - LAUNCH_SECONDS or body in self._used:
                return False
            self._used[body] = made
        return True


def launch_token(key: bytes, clock: Callable[[], float] = time.time) -> str:
    """Return a new launch token for the server that has this key."""
    body = f"{int(clock())}.{secrets.token_hex(16)}"
    return f"{body}.{_sign(key, 'launch', body)}"


def csrf_matches(session: Session, token: str) -> bool:
    """Return whether a request carries its session's CSRF token."""
    return _matches(token, session.csrf)


def lasting_key(folder: Path) -> bytes:
    """Return the key that signs sessions, made at first; only its owner may read the file."""
    file = folder / "session.key"
    try:
        return bytes.fromhex(file.read_text("ascii"))
    except (FileNotFoundError, ValueError):
        write_private(file, secrets.token_hex(32))
        return bytes.fromhex(file.read_text("ascii"))


def write_private(file: Path, text: str) -> None:
    """Replace a file that only its owner may read."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Made with mode 600, before anything is in it.
    descriptor, aside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(aside).replace(file)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


class Password:
    """The password that `--lan` asks for, as a scrypt hash in a file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "password.json"

    def is_set(self) -> bool:
        """Return whether a password was chosen."""
        return self._file.is_file()

    def set(self, password: str) -> None:
        """Choose a password."""
        salt = secrets.token_bytes(16)
        record = {"salt": salt.hex(), "hash": _scrypt(password, salt, _SCRYPT).hex(), **_SCRYPT}
        write_private(self._file, json.dumps(record))

    def matches(self, password: str) -> bool:
        """Return whether this is the password; takes about a tenth of a second on purpose."""
        record = json.loads(self._file.read_text("utf-8"))
        return hmac.compare_digest(
            _scrypt(password, bytes.fromhex(record["salt"]), record),
            bytes.fromhex(record["hash"]),
        )


def _scrypt(password: str, salt: bytes, cost: Mapping[str, int]) -> bytes:
    text = password.encode("utf-8", "replace")
    n, r, p = cost["n"], cost["r"], cost["p"]
    return hashlib.scrypt(text, salt=salt, n=n, r=r, p=p, maxmem=2**26, dklen=32)


def _sign(key: bytes, purpose: str, text: str) -> str:
    return hmac.new(key, f"{purpose}:{text}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _matches(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())
