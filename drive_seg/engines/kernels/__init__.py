"""The CUDA side of a frame that is not the network: camera bytes to network input, network outputs to finished maps.

Knows neither pycuda nor a GPU. Whoever owns the device

1. allocates ``workspace`` (zeroed) and ``results`` per image, and uploads ``geometry_tables`` and ``label_tables``;
2. fills ``np.zeros(batch, FRAME)`` with ``bind`` and ``set_options``, and uploads that;
3. loads ``cubin`` and launches ``LETTERBOX``, the network, ``FUSION`` and, when asked, ``OVERLAY``, each with the
   frames' address as its only argument;
4. copies ``usual_bytes`` of the results back and takes them apart with ``read``.
"""

from drive_seg.engines.kernels.launch import (
    FRAME_KERNELS,
    FUSION,
    LETTERBOX,
    OVERLAY,
    Extent,
    Kernel,
    bind,
    set_options,
)
from drive_seg.engines.kernels.layout import (
    FRAME,
    HEADER,
    INSTANCE,
    Layout,
    Outcome,
    Sizes,
    needed_bytes,
    read,
    results,
    workspace,
)
from drive_seg.engines.kernels.source import cubin, source_text
from drive_seg.engines.kernels.tables import Tables, geometry_tables, image_numbers, label_tables

__all__ = [
    "FRAME",
    "FRAME_KERNELS",
    "FUSION",
    "HEADER",
    "INSTANCE",
    "LETTERBOX",
    "OVERLAY",
    "Extent",
    "Kernel",
    "Layout",
    "Outcome",
    "Sizes",
    "Tables",
    "bind",
    "cubin",
    "geometry_tables",
    "image_numbers",
    "label_tables",
    "needed_bytes",
    "read",
    "results",
    "set_options",
    "source_text",
    "workspace",
]
