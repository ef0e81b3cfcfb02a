"""The algorithm: NumPy in, NumPy out; it knows no Dask, no zarr, no file and no window."""
