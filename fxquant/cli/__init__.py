"""The command line: `fxquant convert | report | inspect | passes | bisect | replay`."""
