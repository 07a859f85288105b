"""TLS: a certificate that is verified wherever the way leads over a network, unless somebody says otherwise."""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import Any

REMEDY = (
    "a server on another machine is reached with TLS and a certificate that is verified (sslmode=verify-full): switch"
    " TLS on there, name the file of its authority in DATABASE_SSLROOTCERT, or say DATABASE_SSLMODE=disable where the"
    " network between can be trusted"
)

BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where machines have the certificates of the authorities that they trust, all in one file."""

SYSTEM = "system"


def require_tls(keywords: dict[str, Any]) -> bool:
    """Ask for a verified certificate where nobody has said anything else; tell whether that was done here.

    What ``system`` means is found out here: the driver's own OpenSSL looks in a place that no machine has.
    """
    asked = False
    if not _is_said(keywords) and any(map(_is_remote, _hosts(keywords))):
        keywords["sslmode"] = "verify-full"
        asked = True
    root = keywords.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    if root == SYSTEM or (root is None and keywords.get("sslmode") == "verify-full" and not _has_own_authority()):
        keywords["sslrootcert"] = _machine_authorities()
    return asked


def _is_said(keywords: dict[str, Any]) -> bool:
    # A service of libpq's own file may name the mode, which what is said here would overrule.
    return any(name in keywords for name in ("sslmode", "service")) or any(
        os.environ.get(name) for name in ("PGSSLMODE", "PGSERVICE", "PGREQUIRESSL")
    )


def _hosts(keywords: dict[str, Any]) -> list[str]:
    # The address is where the connection goes, whatever the name beside it says.
    named = keywords.get("host") or os.environ.get("PGHOST", "")
    reached = keywords.get("hostaddr") or os.environ.get("PGHOSTADDR", "")
    return f"{named},{reached}".split(",")


def _is_remote(host: str) -> bool:
    # Without a name, and with a path, it is a Unix socket.
    if not host or host.startswith(("/", "@")) or host.lower().rstrip(".") == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return True


def _has_own_authority() -> bool:
    # Neither a user without a home nor a home that is somebody else's is an error here, as pathlib makes them.
    return os.access(os.path.expanduser("~/.postgresql/root.crt"), os.R_OK)  # noqa: PTH111


def _machine_authorities() -> str:
    found = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *BUNDLES]
    return next((path for path in found if path and os.access(path, os.R_OK)), SYSTEM)
