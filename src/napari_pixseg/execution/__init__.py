"""The model on images of any size, through Dask."""
