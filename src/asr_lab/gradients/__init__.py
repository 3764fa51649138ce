"""What gradients did in a training: recorded, watched for trouble, and read to choose a clipping threshold."""
