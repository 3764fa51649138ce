"""Corpora in, batches out: manifests, checks, audio, splits, bucketed batches."""
