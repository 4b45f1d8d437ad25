"""The published scorers' own rules, faults included, written from descriptions of them: what a table of the paper's kind would show."""
