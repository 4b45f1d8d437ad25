"""Text (and its reference) in, number out. Imports no torch."""

if __name__ != "omnistage.rewards":
    raise ImportError(f"import this package as 'omnistage.rewards', not as {__name__!r}")
