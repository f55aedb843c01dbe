"""Training of nano_ctc (a Wav2Vec2 with CTC) and nano_moonshine (a Moonshine), which read the waveform itself.

They hear the same speech as `training.nano`, which also has what the three models share: text, voices, acoustics,
digits, optimisers. The results are `quantlab/assets/nano_ctc` and `quantlab/assets/nano_moonshine`.
"""
