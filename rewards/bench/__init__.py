"""Rewards without a GPU: proved on data (`check`, on `probes`), and called again on recorded rollouts (`replay`)."""
