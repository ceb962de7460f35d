"""Cases on many machines, by dask's ``distributed`` (the extra ``irqmatrix[cluster]``)."""
