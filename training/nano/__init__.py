"""The project's own small Whisper: its speech, its training and its evaluation.

`quantlab/assets/nano` is the model that comes out, `quantlab/assets/demo` the corpus it is measured on. Everything
here is needed only to make them again; running quantlab needs neither this package nor a speech synthesiser.
"""
