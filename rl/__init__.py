"""The learning: the policy, its encoding, rollouts and trainers."""

if __name__ != "omnistage.rl":
    raise ImportError(f"import this package as 'omnistage.rl', not as {__name__!r}")
