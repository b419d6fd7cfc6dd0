"""Makes certificates, with the openssl program: what it makes is what operators have."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed (apt-get install openssl)"
)

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA = ("-newkey", "rsa:2048")


class Files(NamedTuple):
    """A certificate and its key, as settings name them."""

    certfile: str
    keyfile: str


class Authority:
    """Signs certificates.

    Args:
        folder: Where the files are written.
        name: Its own.

    Attributes:
        file: Its own certificate.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = name
        self._numbers = itertools.count()
        self.file = str(folder / f"{name}.pem")
        self._key = str(folder / f"{name}-key.pem")
        openssl(
            *("req", "-x509", *EC, "-nodes", "-days", "30", "-subj", f"/CN={name}"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", self._key, "-out", self.file),
        )

    def sign(
        self, *names: str, kind: tuple[str, ...] = EC, subject: str = "/CN=test", usage: str = "serverAuth"
    ) -> Files:
        """Makes a certificate for host names or addresses.

        Args:
            names: As OpenSSL writes them, `DNS:localhost`.
            kind: Of the key, as arguments of `openssl req`.
            subject: Whose it is.
            usage: What it is good for.
        """
        base = self._folder / f"{self._name}-{next(self._numbers)}"
        files = Files(f"{base}.pem", f"{base}-key.pem")
        request, extensions = f"{base}.csr", Path(f"{base}.ext")
        # Clients that keep to RFC 5280 §4.2.1 want the identifiers, too: Python since 3.13.
        lines = [f"extendedKeyUsage={usage}", "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"]
        if names:
            lines.append(f"subjectAltName={','.join(names)}")
        extensions.write_text("\n".join(lines))
        openssl("req", *kind, "-nodes", "-subj", subject, "-keyout", files.keyfile, "-out", request)
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", "30", "-extfile", str(extensions), "-out", files.certfile),
        )
        return files


def openssl(*arguments: str, text: str = "") -> str:
    """Runs openssl, and returns what it prints."""
    done = subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
