"""The algorithm: NumPy in, NumPy out, without Dask, zarr, files or windows."""
