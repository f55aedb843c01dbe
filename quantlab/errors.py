"""What can go wrong that a person can mend: each message says what was got, what is allowed, what to do next."""


class Unavailable(RuntimeError):  # noqa: N818  it is a state of the world, no mistake of the caller
    """A checkpoint or a corpus is neither on this machine nor on a hub that can be reached."""
