"""What is stated of weights: the data they learnt from and the licence they are under."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """``training_data`` and ``license`` of a sidecar, in words for people."""

    training_data: str
    license: str

    def then(self, own: Terms, restated: bool = False) -> Terms:
        """Terms of weights that began with these and went on with ``own``; neither repeats what the other says.

        Args:
            restated: ``own.training_data`` tells all that these learnt from, in words of its own. It says nothing of
                the licence, which stays.
        """
        data = own.training_data if restated else _joined(self.training_data, own.training_data, " Then: ")
        return Terms(data, _joined(self.license, own.license, " And: "))


def _joined(before: str, own: str, link: str) -> str:
    before, own = (" ".join(text.split()) for text in (before, own))
    if not before or _says(own, before):
        return own
    return before if not own or _says(before, own) else f"{before}{link}{own}"


def _says(text: str, part: str) -> bool:
    """Whether ``part`` stands in ``text`` as whole words: LGPL-3.0 does not say GPL-3.0, nor GPL-3.0 GPL-3."""
    return re.search(rf"(?<!\S){re.escape(part)}(?=[.,;:]?(?:\s|$))", text) is not None
