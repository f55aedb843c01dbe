"""Server addresses that show only their host when printed, so that no password or token leaks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re

from quantlab.util.redact import HIDDEN, remember

VARIABLE = "MLFLOW_TRACKING_URI"  # read by MLflow's own tools; also passes to jobs an address that no file holds
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]*)(?::\d{1,5})?"
_FORM = re.compile(rf"([A-Za-z][A-Za-z0-9+.-]*://)(?:([^\s/?#]*)@)?({_HOST}(?:,{_HOST})*)(/[^\s?#@]*)?([?#][^\s@]*)?")


class Address(str):
    """A string of scheme, host and port, with `***` for user, password, path and query.

    Every copy by value is redacted too: printed, in JSON or YAML, pickled. Code that opens the connection gets the
    whole address from `opened`.
    """

    _whole: str
    mark: str  # short hash that tells paths of one host apart; too short to reveal them

    def __new__(cls, text: str) -> Address:
        """Parse it.

        Raises:
            ValueError: it is not an address; the message does not repeat it.
        """
        form = _FORM.fullmatch(text)
        if form is None or not form[3] + (form[4] or ""):
            raise ValueError(
                "expected http://HOST:PORT; write / ? # @ in user or password as %2F %3F %23 %40, or set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        scheme, user, host, path, query = form.groups()
        hides_path = bool(host) and path not in (None, "", "/")
        shown = f"{scheme}{'' if user is None else HIDDEN + '@'}{host}{'/' + HIDDEN if hides_path else path or ''}"
        made = super().__new__(cls, shown + (f"?{HIDDEN}" if query else ""))
        made._whole = text
        made.mark = hashlib.sha256((path or "").encode()).hexdigest()[:2] if hides_path else ""
        if made.hides:
            remember(text, str(made), path.split("/") if hides_path else ())
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)

    @property
    def hides(self) -> bool:
        """Whether part of the address is hidden in the string."""
        return str(self) != self._whole

    @property
    def link(self) -> str:
        """The start of a page's URL."""
        return str(self).replace(f"{HIDDEN}@", "").partition("?")[0].rstrip("/")


def opened(address: str) -> str:
    """The whole address, for code that opens the connection.

    An address read from a file is completed from the environment variable, if it matches.

    Raises:
        ValueError: the hidden part is not in the environment.
    """
    if HIDDEN not in address:
        return str(address)
    if isinstance(address, Address) and address.hides:
        return address._whole
    with contextlib.suppress(ValueError):
        given = Address(os.environ.get(VARIABLE, ""))
        if given == address:
            return given._whole
    raise ValueError(f"user, password, path and query of an address are in no file: set {VARIABLE} to all of it")


def export_address(address: str | None) -> None:
    """Put the whole address into the environment, which sbatch passes to its jobs."""
    if isinstance(address, Address) and address.hides:
        os.environ[VARIABLE] = address._whole
