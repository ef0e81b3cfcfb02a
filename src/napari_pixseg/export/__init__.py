"""What leaves the program: OME-Zarr, pictures, and the manifest that commits them."""
