"""The recipe: what it may hold, how it is read, and what it would do. Imports no torch."""
