"""Language models over the tokenizer's labels, and how a search makes use of one.

A model has the contract `Scorer` of asr_lab.decoding with `begin(n, device)`, is built with the `tokenizer` and the
`train_texts` (those that its signature names), and scores sentences: label V ends one. The neural ones are trained by
`asr-lab train --config-name lm` and then found by asr_lab.lm_run.
"""

from asr_lab.lm.fusion import Fusion, NoFusion

__all__ = ["Fusion", "NoFusion"]
