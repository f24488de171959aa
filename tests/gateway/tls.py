"""A certificate that signs itself, for localhost."""

import ssl
import subprocess
from pathlib import Path

LIFE = ["-days", "1", "-nodes", "-subj", "/CN=localhost"]
NAMES = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]


class Certificate:
    """A certificate and its key."""

    def __init__(self, folder: Path) -> None:
        """Makes both in a folder."""
        self.file, self.key = folder / "certificate.pem", folder / "key.pem"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        files = ["-keyout", str(self.key), "-out", str(self.file)]
        subprocess.run(
            ["openssl", "req", "-x509", *curve, *files, *LIFE, *NAMES],
            check=True,
            capture_output=True,
        )

    @property
    def variables(self) -> dict[str, object]:
        """What the environment of a gateway takes."""
        return {"GATEWAY_CERTIFICATE": self.file, "GATEWAY_KEY": self.key}

    def context(self) -> ssl.SSLContext:
        """For a client that trusts it."""
        return ssl.create_default_context(cafile=str(self.file))
