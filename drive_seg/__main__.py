"""``python -m drive_seg``."""

from drive_seg.executables import command_line

if __name__ == "__main__":
    command_line()
