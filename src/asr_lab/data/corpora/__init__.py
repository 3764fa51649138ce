"""Public corpora: what each says of its recordings, from the folder that its archives unpack to."""
