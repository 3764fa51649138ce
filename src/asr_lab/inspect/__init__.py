"""What `asr-lab inspect` shows of a network: computed in one file, printed or drawn in another."""
