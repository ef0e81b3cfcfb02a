"""napari layers: previews, pyramids, results."""
