"""From the samples of an image to the class of every pixel, tile by tile."""
