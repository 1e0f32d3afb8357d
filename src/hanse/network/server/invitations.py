"""Invitations that were not used yet: their tokens, in files that only their owner may read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hanse.core import InvalidInput, PartyId
from hanse.network.protocol.private_files import write_privately
from hanse.network.protocol.tokens import Token
from hanse.network.server.members import Members

__all__ = ["Invitations"]


class Invitations:
    """The tokens of parties that have not joined, so that a server that starts again can show the same ones.

    The register holds the public halves of invitations only, so a token can't be made from it. A token's file
    is removed when its party is heard as a member: one that was killed while it joined needs it once more.

    Args:
      folder: is made when it is needed, readable for its owner only.
    """

    def __init__(self, folder: Path, members: Members) -> None:
        self.folder, self._members = folder, members
        self.copies: Path | None = None
        """A folder for copies of the files, from which the operator hands them out; None: there are none."""
        names = (path.name for path in folder.glob("hanse-client-*.token"))
        self._kept = {name.removeprefix("hanse-client-").removesuffix(".token") for name in names}

    def invite(self, fingerprint: str, key: str, **about: Any) -> tuple[Token, int | None]:
        """Makes an invitation; returns its token, and the number reserved for a client.

        Args:
          fingerprint: of the certificate that the server shows.
          key: the public key of the server.
          about: see `Members.invite`.

        Raises: InvalidInput.
        """
        secret, number = self._members.invite(**about)
        token = Token(fingerprint, secret, key)
        party = about.get("party") or number
        if party is not None:
            self._keep(party, token)
        return token, number

    def find(self, fingerprint: str, key: str, party: PartyId) -> Token:
        """Returns the token of a party's open invitation; makes an invitation if none is open."""
        path = self.path(party)
        try:
            token = Token.parse(path.read_text().strip())
        except (OSError, InvalidInput):
            token = None
        if token is None or not self._members.is_open(token.secret):
            about = {"number": party} if isinstance(party, int) else {"party": party}
            return self.invite(fingerprint, key, **about)[0]
        token = Token(fingerprint, token.secret, key)  # the certificate may have changed
        self._keep(party, token)
        return token

    def path(self, party: PartyId) -> Path:
        """Returns the path of a party's token."""
        return self.folder / f"hanse-client-{party}.token"

    def copy(self, party: PartyId) -> Path:
        """Returns the path of the file that the operator hands out."""
        return (self.copies or self.folder) / self.path(party).name

    def hear(self, party: PartyId | None) -> None:
        """Notes that a member was heard, so that the token of its party is no longer needed."""
        if str(party) in self._kept and party is not None:
            self.forget([party])

    def forget(self, parties: Iterable[PartyId]) -> None:
        """Removes the tokens of parties that have joined."""
        for party in parties:
            self._kept.discard(str(party))
            for path in {self.path(party), self.copy(party)}:
                path.unlink(missing_ok=True)

    def _keep(self, party: PartyId, token: Token) -> None:
        self._kept.add(str(party))
        for path in {self.path(party), self.copy(party)}:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_privately(path, f"{token}\n".encode())
