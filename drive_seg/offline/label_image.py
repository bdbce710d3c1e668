"""Label images from files: class ids, panoptic ids or colours as they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.decode import decode_file
from drive_seg.errors import MalformedImage, SourceError


def read_label_image(path: Path, what: str = "ground truth") -> NDArray[Any]:
    """The pixels as OpenCV gives them: uint8 or uint16, (H, W), (H, W, 3) BGR or (H, W, 4) BGRA.

    Args:
        what: for messages.

    Raises:
        SourceError: unreadable, no PNG or JPEG, damaged, or larger than any camera image may be.
    """
    try:
        return decode_file(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, MalformedImage) as error:
        raise SourceError(f"{what} {path} is no image that can be read: {error}") from error
