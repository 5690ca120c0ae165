"""Published weights: catalog, search, download, and the weights that ship with the package."""
