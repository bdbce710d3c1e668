"""Images and truth of one bag in one pass over its file: whoever reads it twice reads most of it for nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from drive_seg.errors import DriveSegError
from drive_seg.frame import Frame
from drive_seg.offline.bags import BagSource, Beside
from drive_seg.offline.sources import Source, Unreadable
from drive_seg.offline.truth import TruthSource
from drive_seg.offline.truth_bags import BagTruth

_AHEAD = 8
"""Images kept because a truth was looked for behind them."""


def share(source: Source, truth: TruthSource) -> Source:
    """The source, which tells ``truth`` on the way what the bag has for it, where both are of one whole bag.

    To be iterated in the thread that asks the truth.
    """
    if isinstance(source, BagSource) and isinstance(truth, BagTruth) and source.whole and truth.whole == source.whole:
        return _SharedPass(source, truth)
    return source


class _SharedPass:
    """A bag's images; its truth is told of the messages between them, as long as these are near their images.

    A truth that is far behind its image, or sparse, or looked for behind damage, reads the bag by itself from then on.
    """

    live = False

    def __init__(self, bag: BagSource, truth: BagTruth) -> None:
        self.name, self.fps, self.count = bag.name, bag.fps, bag.count
        self._bag, self._truth = bag, truth
        self._ahead: deque[Frame | Unreadable | DriveSegError] = deque()

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        self._ahead.clear()
        self._items = self._bag.entries(beside=self._truth.topics)
        self._telling = True
        self._truth.follow(self._look_ahead)
        # It stays open where not all images are taken: the truth of the last of them is behind it in the bag.
        while self._ahead or self._step():
            if not self._ahead:
                continue
            item = self._ahead.popleft()
            if isinstance(item, DriveSegError):
                raise item
            yield item

    def _step(self) -> bool:
        """Take one message of the bag; False at its end."""
        try:
            item = next(self._items, None)
        except DriveSegError as cut:
            self._ahead.append(cut)
            self._stop_telling(True)  # of what is behind the damage nothing was told
            return True
        if isinstance(item, Beside):
            if self._telling:
                self._truth.tell(item.topic, item.decode)
                self._stop_telling(self._truth.crowded)
        elif isinstance(item, (Frame, Unreadable)):
            self._ahead.append(item)
        return item is not None

    def _look_ahead(self) -> bool:
        """For a truth that has not come yet."""
        self._stop_telling(len(self._ahead) >= _AHEAD)
        return not self._telling or self._step()

    def _stop_telling(self, now: bool) -> None:
        if now and self._telling:
            self._telling = False
            self._truth.read_alone()
