"""Certificates of an authority that tests make, by the program ``openssl``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_credentials(folder: Path, name: str = "IP:127.0.0.1") -> Path:
    """Make a directory with an authority and certificates of a server, which has this name, and a client."""
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not installed")
    folder.mkdir()
    make_key(folder, "ca")
    openssl(
        folder, "req", "-x509", "-key", "ca-key.pem", "-out", "ca-cert.pem", "-subj", "/CN=authority", "-days", "30"
    )
    for side in ("server", "client"):
        make_key(folder, side)
        openssl(folder, "req", "-new", "-key", f"{side}-key.pem", "-out", f"{side}.csr", "-subj", f"/CN={side}")
        (folder / "names").write_text(f"subjectAltName={name}\n")
        sign = ("-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "30", "-extfile", "names")
        openssl(folder, "x509", "-req", "-in", f"{side}.csr", "-out", f"{side}-cert.pem", *sign)
    return folder


def make_key(folder: Path, side: str) -> None:
    openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{side}-key.pem")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
