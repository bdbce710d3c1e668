"""The demo: real nodes as separate processes, watched from outside over the same topics a user would use.

Reading order: ``session`` (what happens when), ``children`` (the processes), ``player`` (the camera process for
recordings), ``watch`` (what arrives, counted and matched by stamp), ``spool`` (frames kept for the video), ``render``
(video and plot afterwards, so that drawing disturbs no measurement).
"""
