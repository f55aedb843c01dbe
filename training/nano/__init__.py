"""Training and evaluation of nano, the project's own small Whisper, and synthesis of its speech.

The results are the model `quantlab/assets/nano` and the corpus `quantlab/assets/demo`. This package is
needed only to make them again; running quantlab needs neither it nor a speech synthesiser.
"""
