"""How it is started: the command line and the workers."""

if __name__ != "omnistage.launch":
    raise ImportError(f"import this package as 'omnistage.launch', not as {__name__!r}")
