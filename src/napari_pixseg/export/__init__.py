"""Write results: OME-Zarr stores, pictures, and the manifest that commits them."""
