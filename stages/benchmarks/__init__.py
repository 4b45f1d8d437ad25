"""Benchmarks: what is asked, what an answer is worth, which figures the answers make. Nothing here imports torch."""
