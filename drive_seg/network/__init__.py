"""The torch side: the network, its training data, its losses, training and export.

Reading order: ``panoptic`` (what is computed), ``datasets`` (what it learns from), ``targets`` and ``losses``
(what it is asked), ``train`` (the loop), ``export`` (the ONNX file and its sidecar), ``validate`` (the
figures).

This is the only place in the package that imports torch. The core never imports it: an exported ONNX file and
its sidecar are all that inference needs.
"""

from drive_seg.privacy import forbid_reports

forbid_reports()  # ``precision`` imports ONNX Runtime
