"""What is trained when: the recipe, the pipeline, the stages, the evaluation."""

if __name__ != "omnistage.stages":
    raise ImportError(f"import this package as 'omnistage.stages', not as {__name__!r}")
