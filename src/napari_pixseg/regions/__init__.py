"""Connected regions of equal class, stitched across tiles."""
