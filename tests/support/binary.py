"""Builds the control-plane binary once per content and keeps it outside the repository.

The key covers everything that decides what the binary does: go.mod, go.sum, the sources, the flags and the Go
version. A changed source therefore never meets a stale binary, and a fresh clone with the same content reuses one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

KUBERNETES_VERSION = "v1.36.3"
SOURCE = Path(__file__).resolve().parent.parent / "controlplane"
PROGRESS_EVERY = 10.0  # seconds between two progress lines
MINIMUM_GO = (1, 26)


def _linker_flags() -> str:
    """`-X` settings for `/version`: without them clients and Helm see a nonsense version."""
    _, minor, _ = KUBERNETES_VERSION.split(".")
    keys = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": "1",
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "tenure",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    settings = [f"-X {package}.{key}={value}" for package in packages for key, value in keys.items()]
    return " ".join(["-s", "-w", *settings])


BUILD_FLAGS = ("-trimpath", "-ldflags", _linker_flags())
BUILD_ENVIRONMENT: Mapping[str, str] = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


class BuildError(RuntimeError):
    """The control plane could not be built; the message carries the compiler's last lines."""


def _environment() -> dict[str, str]:
    return {**os.environ, **BUILD_ENVIRONMENT}


def go_version() -> str:
    """The toolchain as `go1.26.8 linux/amd64`. Raises BuildError when there is none, or one too old."""
    try:
        answer = subprocess.run(
            ["go", "env", "GOVERSION", "GOOS", "GOARCH"],
            cwd="/",
            env=_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        raise BuildError("go is not on PATH: Go 1.26 or newer builds the control plane") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"go env failed: {error.stderr.strip()}") from error
    version, system, architecture = answer.stdout.split()
    numbers = version.removeprefix("go").split(".")
    with contextlib.suppress(ValueError):
        if (int(numbers[0]), int(numbers[1])) < MINIMUM_GO:
            raise BuildError(f"{version} is too old: Go 1.26 or newer builds the control plane")
    return f"{version} {system}/{architecture}"


def content_key(source: Path = SOURCE, *, go: str | None = None) -> str:
    """The sha256, in hex, of what the binary is made of. `go` defaults to the toolchain on PATH."""
    digest = hashlib.sha256()
    for path in sorted([source / "go.mod", source / "go.sum", *source.glob("*.go")]):
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    for part in (*BUILD_FLAGS, *(f"{key}={value}" for key, value in BUILD_ENVIRONMENT.items()), go or go_version()):
        digest.update(f"\0{part}".encode())
    return digest.hexdigest()


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/tenure/controlplane`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tenure" / "controlplane"


@contextlib.contextmanager
def exclusive(path: Path, out: TextIO) -> Iterator[None]:
    """One builder per key and machine; the second one waits and then finds the binary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("control plane: another process is building it, waiting", file=out, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure_binary(*, out: TextIO | None = None) -> Path:
    """The path of the binary for this content, built when it is not cached. Progress goes to `out` (stderr).

    Raises BuildError.
    """
    out = out or sys.stderr
    directory = cache_root() / content_key()
    binary = directory / "controlplane"
    if binary.exists():
        return binary
    with exclusive(directory / "lock", out):
        if not binary.exists():
            _build(binary, out)
    return binary


def _package_count() -> int:
    """How many packages the build consists of, 0 when that cannot be told (it only serves the progress line)."""
    answer = subprocess.run(
        ["go", "list", "-deps", "."], cwd=SOURCE, env=_environment(), capture_output=True, text=True, check=False
    )
    return len(answer.stdout.splitlines()) if answer.returncode == 0 else 0


def _build(binary: Path, out: TextIO) -> None:
    started = time.monotonic()
    print("control plane: not cached, building (about 6 minutes on 2 cores with cold caches)", file=out, flush=True)
    print("control plane: resolving modules", file=out, flush=True)
    total = _package_count()
    partial = binary.with_name(f"{binary.name}.{os.getpid()}.part")
    # `-v` names each package as it is compiled; packages already in Go's build cache are not named.
    process = subprocess.Popen(
        ["go", "build", "-v", *BUILD_FLAGS, "-o", str(partial), "."],
        cwd=SOURCE,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=lines.extend, args=(iter(process.stderr.readline, ""),), daemon=True)
    reader.start()
    try:
        while True:
            try:
                code = process.wait(timeout=PROGRESS_EVERY)
                break
            except subprocess.TimeoutExpired:
                elapsed = int(time.monotonic() - started)
                of = f" of at most {total}" if total else ""
                print(
                    f"control plane: {len(lines)}{of} packages compiled, {elapsed // 60} min {elapsed % 60:02} s",
                    file=out,
                    flush=True,
                )
    except BaseException:
        process.kill()
        process.wait()
        partial.unlink(missing_ok=True)
        raise
    reader.join()
    if code != 0:
        partial.unlink(missing_ok=True)
        raise BuildError("go build failed:\n" + "".join(lines[-30:]))
    partial.replace(binary)
    print(f"control plane: built in {time.monotonic() - started:.0f} s, {binary}", file=out, flush=True)
