"""Quick check whether a server answers, without importing MLflow."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from quantlab.tracking.errors import Unreachable
from quantlab.util.address import Address
from quantlab.util.redact import redact

PROBE_S = 1.5  # a live server answers in milliseconds


def reach(uri: str, timeout_s: float = PROBE_S) -> None:
    """Ask the server whether it is well: an answer that is no error of its own will do, a "who are you?" too.

    User, password, token and certificates are those that MLflow's client takes from the environment.

    Raises:
        Unreachable: nothing answers, or nothing behind the proxy does.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return
    import requests

    try:
        with requests.get(
            f"{uri.rstrip('/')}/health",
            timeout=timeout_s,
            headers=_authorization(),
            verify=_verify(),
            cert=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
            stream=True,  # the status is all that matters
        ) as answer:
            status = answer.status_code
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise Unreachable(f"MLflow: no server answers at {Address(uri)} ({_why(error)})") from None
    if status >= 500:
        raise Unreachable(f"MLflow: the server at {Address(uri)} is not well: it answers {status}")


def _authorization() -> dict[str, str]:
    import requests

    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user and password:
        return {"Authorization": requests.auth._basic_auth_str(user, password)}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _verify() -> bool | str:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def _why(error: Exception) -> str:
    """The last cause alone: requests wraps it twice, with the address in each."""
    text = " ".join(str(error).split())
    for name, short in _SHORT.items():
        if name in text:
            return short
    return redact(text)


_SHORT = {
    "timed out": "timed out",
    "Connection refused": "connection refused",
    "Connection reset": "connection reset",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted; name it in MLFLOW_TRACKING_SERVER_CERT_PATH",
    "Name or service not known": "no such host",
}
