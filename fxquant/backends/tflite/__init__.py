"""The TFLite backend: from the core dialect to a file that LiteRT runs."""
