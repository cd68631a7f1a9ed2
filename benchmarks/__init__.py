"""One script for each question; each prints a table and, on wish, JSON."""
