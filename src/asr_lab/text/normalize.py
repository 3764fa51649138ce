"""Text normalisation: what is done to transcripts before training, and to both sides before scoring."""


def basic(text: str) -> str:
    """Lower case, one space between words, none at the ends."""
    return " ".join(text.lower().split())
