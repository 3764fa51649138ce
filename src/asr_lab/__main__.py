"""`python -m asr_lab` is the same as `asr-lab`."""

from asr_lab.cli import main

if __name__ == "__main__":
    main()
