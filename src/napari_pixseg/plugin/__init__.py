"""The napari plugin: widget, live preview, sample data, reader and writers."""
