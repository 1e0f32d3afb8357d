"""Private files, such as keys: only their owner can read them, and a passphrase can encrypt them.

An encrypted home holds a file `sealing-key`: a random key, encrypted with a key that scrypt derives from the
passphrase. The private files are encrypted with that random key, so another passphrase changes one file.
"""

import getpass
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from hanse.core import InvalidInput
from hanse.network.protocol.spool import sync_folder

__all__ = [
    "change_passphrase",
    "encrypt_home",
    "make_private",
    "read_private",
    "remove_passphrase",
    "write_privately",
]

SEALING_KEY = "sealing-key"
PRIVATE = ("key.pem", "key.next.pem", "secret", "identity.pem", "houses.key")
"""The names of private files of clients and servers."""

SEALED = b"hanse: encrypted with AES-256-GCM\n"
LOCKED = b"hanse: encrypted with scrypt (2^16, 8, 1) and AES-256-GCM\n"
SALT_BYTES, NONCE_BYTES = 16, 12

PASSPHRASE, NEW_PASSPHRASE = "HANSE_PASSPHRASE", "HANSE_NEW_PASSPHRASE"

_given: dict[str, str] = {}
_opened: dict[bytes, bytes] = {}
"""The sealing keys that this process has opened, by the content of their files."""


def read_private(path: Path) -> bytes:
    """Reads a private file, and decrypts it if it is encrypted. Raises: InvalidInput."""
    data = path.read_bytes()
    if not data.startswith(SEALED):
        return data
    holder = _find_sealing_key(path)
    if holder is None:
        raise InvalidInput(f"{path} is encrypted, and {path.parent / SEALING_KEY} is missing; restore it")
    try:
        return _decrypt(_open_sealing_key(holder), data.removeprefix(SEALED))
    except InvalidTag:
        raise InvalidInput(f"{path} is damaged, or was encrypted with another {holder}") from None


def make_private(path: Path, data: bytes) -> None:
    """Writes a private file, encrypted in an encrypted home, unless another command has just made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = _write_beside(path, _seal(path, data))
    with suppress(FileExistsError):
        os.link(whole, path)
    whole.unlink()


def write_privately(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all, that only its owner may read, and does not encrypt it."""
    _write_beside(path, data).replace(path)


def encrypt_home(home: Path) -> None:
    """Encrypts the private files of a home with a passphrase, and those that are made later.

    Doing it again completes what was cut off.

    Raises: InvalidInput: if there is no passphrase.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    holder = home / SEALING_KEY
    if not holder.exists():
        _lock(holder, secrets.token_bytes(32), _find_passphrase(PASSPHRASE, home, new=True))
    for path in _list_private(home):
        data = path.read_bytes()
        if not data.startswith(SEALED):
            _write_beside(path, _seal(path, data)).replace(path)


def change_passphrase(home: Path) -> None:
    """Encrypts a home with another passphrase, or with a first one. Raises: InvalidInput."""
    holder = home / SEALING_KEY
    if holder.exists():
        key = _open_sealing_key(holder)
        _lock(holder, key, _find_passphrase(NEW_PASSPHRASE, home, new=True))
    encrypt_home(home)


def remove_passphrase(home: Path) -> None:
    """Decrypts the private files of a home. Raises: InvalidInput: if the passphrase is missing or wrong."""
    holder = home / SEALING_KEY
    if not holder.exists():
        raise InvalidInput(f"the keys in {home} are not encrypted")
    for path in _list_private(home):
        _write_beside(path, read_private(path)).replace(path)
        sync_folder(path.parent)
    holder.unlink()


def _list_private(home: Path) -> list[Path]:
    found = [folder / name for folder in (home, home / "operator") for name in PRIVATE]
    return [path for path in found if path.exists()]


def _find_sealing_key(path: Path) -> Path | None:
    """Finds the sealing key of a file in a home, or in the operator's folder there."""
    places = [path.parent / SEALING_KEY]
    if path.parent.name == "operator":
        places.append(path.parent.parent / SEALING_KEY)
    return next((place for place in places if place.exists()), None)


def _seal(path: Path, data: bytes) -> bytes:
    holder = _find_sealing_key(path)
    return data if holder is None else SEALED + _encrypt(_open_sealing_key(holder), data)


def _lock(holder: Path, key: bytes, passphrase: str) -> None:
    salt = secrets.token_bytes(SALT_BYTES)
    data = LOCKED + salt + _encrypt(_derive(passphrase, salt), key)
    _write_beside(holder, data).replace(holder)
    sync_folder(holder.parent)  # before anything is encrypted that only this key opens
    _opened[data] = key


def _open_sealing_key(holder: Path) -> bytes:
    data = holder.read_bytes()
    if data not in _opened:
        locked = data.removeprefix(LOCKED)
        passphrase = _find_passphrase(PASSPHRASE, holder.parent, new=False)
        try:
            _opened[data] = _decrypt(_derive(passphrase, locked[:SALT_BYTES]), locked[SALT_BYTES:])
        except (InvalidTag, ValueError):
            _given.pop(PASSPHRASE, None)
            raise InvalidInput(
                f"this passphrase does not open the keys in {holder.parent}; type the one with which they "
                f"were encrypted, or give it in ${PASSPHRASE}"
            ) from None
    return _opened[data]


def _derive(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**16, r=8, p=1).derive(passphrase.encode())


def _encrypt(key: bytes, data: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, None)


def _decrypt(key: bytes, data: bytes) -> bytes:
    return AESGCM(key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], None)


def _find_passphrase(name: str, home: Path, *, new: bool) -> str:
    """Returns a passphrase: from the environment, from the file that it names, or from the terminal.

    It is taken out of the environment, so that no child process finds it there.
    """
    given = os.environ.pop(name, None)
    if given is None and f"{name}_FILE" in os.environ:
        given = Path(os.environ[f"{name}_FILE"]).read_text().rstrip("\r\n")
    if given is None:
        given = _given.get(name)
    if given is None and sys.stdin is not None and sys.stdin.isatty():
        given = _ask(home, new)
    if not given:
        raise InvalidInput(
            f"the keys in {home} {'are to be' if new else 'are'} encrypted, and there is no passphrase: "
            f"start this command in a terminal, or give it in ${name}, or a file of it in ${name}_FILE"
        )
    _given[PASSPHRASE] = given
    return given


def _ask(home: Path, new: bool) -> str:
    given = getpass.getpass(f"{'New passphrase' if new else 'Passphrase'} for the keys in {home}: ")
    if new and getpass.getpass("The same again: ") != given:
        raise InvalidInput("these are two passphrases; nothing was changed")
    return given


def _write_beside(path: Path, data: bytes) -> Path:
    """Writes a file under a name of its own, for its owner only, and returns its path."""
    whole = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return whole
