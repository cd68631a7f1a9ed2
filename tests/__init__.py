"""The tests of fxquant; the folders mirror the package."""
