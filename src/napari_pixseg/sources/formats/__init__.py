"""Reads files with other libraries: microscope files with bioio, slides with OpenSlide."""
