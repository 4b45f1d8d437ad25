"""What a sample is: records, readers, media, rendered clips. Imports no torch."""

if __name__ != "omnistage.data":
    raise ImportError(f"import this package as 'omnistage.data', not as {__name__!r}")
