"""The command line: `fxquant convert | inspect | passes | bisect | replay`."""
