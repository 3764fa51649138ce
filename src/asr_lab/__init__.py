"""asr_lab: declarative speech-recognition ablations. Importing it loads nothing heavy."""

__version__ = "0.1.0"
