"""Completions judged by another model: the reward, the calls, and the ledger that pays for none twice."""
