"""The batch job: history in, a model bundle out."""
