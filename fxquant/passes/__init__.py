"""The passes, one rewrite a file, and what runs them."""
