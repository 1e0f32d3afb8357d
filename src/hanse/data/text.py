"""Plain text by speaker: plays, interviews, chats."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import KW_ONLY
from os import fspath

import numpy as np

from hanse.core import Array, Examples, InvalidInput, value
from hanse.data.checks import check_fractions
from hanse.data.datasets import Dataset, TrainTest
from hanse.data.files import text_lines

__all__ = ["text"]

BLANK = re.compile(r"\n[ \t]*\n\s*")
NAME = re.compile(r"([^\n:]{1,60}):[ \t]*(?:\n|$)")
OTHER = 127
"""The code of all characters that are not ASCII."""


@value
class text(Dataset):
    """Text by speaker, to predict each character from those before it; .gz is unpacked.

    The format: blank lines separate speeches; the first line of a speech is the speaker's name and a
    colon. A paragraph without a name continues the speech before it.

        First Citizen:
        Before we proceed any further, hear me speak.

        All:
        Speak, speak.

    A speaker's speeches are joined and cut into sequences of characters. Features are `length`
    characters as ASCII codes, labels are the character that follows each of them; accents are dropped, and
    other characters have the code 127. Each speaker is a key, so `by_key()` makes a client of each; the
    last sequences of a speaker are for testing. Speakers with too little text for one sequence are left out.

    Args:
      path: of the file.
      length: characters in a sequence.
      test_fraction: of each speaker's sequences, the last ones, held out.
      encoding: of the text.
      validation_fraction: of each speaker's sequences, those before the last, held out to choose by.
    Raises: InvalidInput: if no speaker is found, or none says enough.
    References: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-efficient learning of deep
      networks from decentralized data", AISTATS 2017, arXiv 1602.05629, section 3 (Shakespeare by role;
      the last 20% of a role's lines test).
    """

    path: str
    _: KW_ONLY
    length: int = 80
    test_fraction: float = 0.2
    encoding: str = "utf-8"
    validation_fraction: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", fspath(self.path))
        if self.length < 1:
            raise InvalidInput(f"length is {self.length}; write at least 1 character")
        check_fractions(self.test_fraction, self.validation_fraction)

    def load(self) -> TrainTest:
        """Reads the file; speakers are in the order of their names."""
        with text_lines(self.path, self.encoding) as file:
            speeches = _by_speaker(file.read().replace("\r\n", "\n"))
        if not speeches:
            raise InvalidInput(
                f'{self.path}: no speaker was found; a speech starts with a line such as "HAMLET:", after a '
                "blank line"
            )
        sequences = {name: _sequences(_codes(words), self.length) for name, words in sorted(speeches.items())}
        sequences = {name: cut for name, cut in sequences.items() if len(cut)}
        if not sequences:
            longest = max(map(len, speeches.values()))
            raise InvalidInput(
                f"{self.path}: no speaker has more than {longest} characters; write "
                f"length={max(1, longest - 1)} or less"
            )
        (train, keys), (validation, _), (test, test_keys) = (
            _join({name: self._divide(cut)[part] for name, cut in sequences.items()}) for part in range(3)
        )
        return TrainTest(
            train,
            test if len(test) else None,
            keys=keys,
            test_keys=test_keys if len(test) else None,
            validation=validation if len(validation) else None,
        )

    def _divide(self, cut: Array) -> list[Array]:
        """Divides a speaker's sequences: to train on, to choose by, and to test on."""
        end = len(cut) - int(self.test_fraction * len(cut))
        return np.split(cut, [end - int(self.validation_fraction * len(cut)), end])


def _by_speaker(whole: str) -> Mapping[str, str]:
    """Joins all speeches of each speaker; each speech ends with a new line."""
    by_speaker: dict[str, list[str]] = {}
    speaker = None
    for paragraph in BLANK.split(whole.strip()):
        found = NAME.match(paragraph)
        if found is not None:
            speaker, paragraph = found[1].strip(), paragraph[found.end() :]
        if speaker is not None and paragraph:
            by_speaker.setdefault(speaker, []).append(paragraph + "\n")
    return {name: "".join(speeches) for name, speeches in by_speaker.items()}


def _codes(words: str) -> Array:
    plain = "".join(c for c in unicodedata.normalize("NFKD", words) if not unicodedata.combining(c))
    codes = np.array([ord(c) for c in plain], np.int32)
    return np.where(codes < OTHER, codes, OTHER).astype(np.uint8)


def _sequences(codes: Array, length: int) -> Array:
    """Cuts codes into sequences, each with the character after it, (n, length + 1)."""
    starts = np.arange(0, len(codes) - length, length)
    return np.asarray(codes[starts[:, None] + np.arange(length + 1)])


def _join(sequences: Mapping[str, Array]) -> tuple[Examples, Array]:
    """Joins all sequences, and names the speaker of each."""
    keys = np.repeat(list(sequences), [len(cut) for cut in sequences.values()])
    cut = np.concatenate(list(sequences.values()))
    return Examples(cut[:, :-1].astype(np.int64), cut[:, 1:].astype(np.int64)), keys
