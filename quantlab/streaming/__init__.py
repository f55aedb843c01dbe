"""Streaming on a virtual clock: when audio is decoded, which words are final, and figures of both.

Nothing here decodes: a recogniser is a function, so that recorded streams are played back by the same code.
"""
