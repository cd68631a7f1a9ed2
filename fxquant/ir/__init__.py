"""How a graph prints, is viewed, edited and checked."""
