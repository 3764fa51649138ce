"""Text in and out of label ids, and the normalisation that scoring and training share."""
