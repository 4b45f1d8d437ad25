"""Measurement: held-out answers, controls, intervals, and the summary of a run."""
