"""Scores over a corpus."""
