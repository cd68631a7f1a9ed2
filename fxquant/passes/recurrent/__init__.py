"""Recurrent layers written out: what they are, one step of each kind, and the nodes they become."""
