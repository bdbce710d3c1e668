"""``python -m drive_seg``."""

from drive_seg.cli import main

if __name__ == "__main__":
    main()
