"""The image, built as CI and people build it, and its root then run as far as needs no cluster.

No registry is asked: a debootstrapped Debian, kept outside the repository, stands in for both bases."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure import __version__
from tests.support.binary import cache_root, exclusive
from tests.support.cluster import REPOSITORY
from tests.support.helm import CHART

DOCKERFILE = REPOSITORY / "Dockerfile"
USER = "64310"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"

builds = [
    pytest.mark.long,
    pytest.mark.skipif(
        os.getuid() != 0 or not all(map(shutil.which, ("buildah", "debootstrap"))),
        reason="needs root, buildah and debootstrap (apt-get install buildah debootstrap; .ci/run does)",
    ),
]


def test_hadolint_is_content() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_installed_is_pinned_and_hashed() -> None:
    text = DOCKERFILE.read_text()
    installs = re.findall(r"pip(?: --python \S+)? install (.*)", text)
    assert len(installs) == 3
    for arguments in installs:
        assert "--require-hashes" in arguments or "--no-index" in arguments
    for name in re.findall(r"-r (\S+\.txt)", text):
        for requirement in re.split(r"\n(?=[a-z])", (REPOSITORY / name).read_text()):
            if "==" in requirement:
                assert "--hash=sha256:" in requirement, requirement


def test_it_runs_as_the_charts_user() -> None:
    [user] = re.findall(r"^USER (\d+):\1$", DOCKERFILE.read_text(), re.MULTILINE)
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()
    assert user == USER
    assert int(user) > 10_000
    assert f"runAsUser: {user}" in helpers


@dataclass
class Image:
    root: Path
    config: dict[str, Any]
    sbom: dict[str, Any]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """In its root, as its user."""
        return subprocess.run(
            ["chroot", f"--userspec={USER}:{USER}", str(self.root), *command],
            env={key: value for key, _, value in (entry.partition("=") for entry in self.config["Env"])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _debian() -> Path:
    """A Debian with its Python, made once by debootstrap (some minutes)."""
    root = cache_root().parent / "image" / "bookworm"
    with exclusive(root.with_suffix(".lock"), sys.stderr):
        if not root.exists():
            partial = root.with_suffix(".part")
            shutil.rmtree(partial, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(partial)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
            if done.returncode != 0:  # no fault of the image's
                pytest.skip(
                    f"debootstrap got no Debian to stand in for the bases: {done.stdout[-500:]}{done.stderr[-500:]}"
                )
            partial.rename(root)
    return root


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with tempfile.TemporaryDirectory(prefix="tenure-image-") as name:
        directory = Path(name)

        def buildah(*arguments: str) -> str:
            # vfs needs no kernel module, chroot no container runtime.
            place = [f"--root={directory}/store", f"--runroot={directory}/run"]
            done = subprocess.run(
                ["buildah", "--storage-driver=vfs", *place, *arguments],
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
            assert done.returncode == 0, f"buildah {arguments[0]}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
            return done.stdout.strip()

        base = buildah("from", "scratch")
        # By cp: shutil would read the device files in it, without end.
        subprocess.run(["cp", "-a", f"{_debian()}/.", buildah("mount", base)], check=True)
        bases = re.findall(r"^ARG \w+_IMAGE=(\S+)", DOCKERFILE.read_text(), re.MULTILINE)
        assert len(bases) == 2
        for called in bases:
            buildah("commit", "--quiet", base, called)
        # How this machine reaches the package index is this machine's.
        settings = [Path(file) for file in ("/etc/pip.conf",) if Path(file).exists()]
        for file in list(settings):
            settings += [Path(found) for found in re.findall(r"^cert\s*=\s*(\S+)", file.read_text(), re.MULTILINE)]
        shared = [f"--volume={file}:{file}:ro" for file in settings]
        build = ["bud", "--isolation=chroot", "--pull-never", "--layers=false", *shared, "--build-arg=REVISION=abc"]
        buildah(*build, "--tag=tenure", ".")
        made = buildah("from", "--pull-never", "localhost/tenure")
        root = Path(buildah("mount", made))
        config = json.loads(buildah("inspect", "--type=image", "localhost/tenure"))["OCIv1"]["config"]
        yield Image(root, config, json.loads((root / "usr/share/tenure/tenure.cdx.json").read_text()))


@pytest.mark.usefixtures("image")
class TestBuilt:
    pytestmark = builds

    def test_it_says_what_it_is_and_runs_as_nobody(self, image: Image) -> None:
        assert image.config["User"] == f"{USER}:{USER}"
        labels = image.config["Labels"]
        assert labels["org.opencontainers.image.version"] == __version__
        assert labels["org.opencontainers.image.revision"] == "abc"
        assert image.config["Entrypoint"] == ["/app/bin/python", "-m", "tenure"]
        assert image.config["Cmd"] == ["run"]

    def test_it_prints_its_version_without_a_shell(self, image: Image) -> None:
        (image.root / "bin" / "sh").rename(image.root / "bin" / "sh.away")
        try:
            done = image.run(*image.config["Entrypoint"], "version")
        finally:
            (image.root / "bin" / "sh.away").rename(image.root / "bin" / "sh")
        assert (done.stdout, done.returncode) == (f"{__version__}\n", 0), done.stderr

    def test_the_wheel_is_in_it_and_not_the_tree(self, image: Image) -> None:
        [package] = (image.root / "app" / "lib").glob("python3.*/site-packages")
        assert (package / "tenure" / "enforce" / "policies.json").is_file()
        assert list(package.glob("tenure-*.dist-info/WHEEL"))
        for name in ("src", "build", "wheel", "operator", "app/operator"):
            assert not (image.root / name).exists()
        assert not [path for path in package.iterdir() if path.name.startswith(("pip", "hatchling", "cyclonedx"))]

    def test_its_user_can_write_nothing_of_it(self, image: Image) -> None:
        program = (
            "import os\n"
            "for top, names, files in os.walk('/'):\n"
            "    if top in ('/proc', '/sys', '/dev'): names[:] = []\n"
            "    elif any(os.access(os.path.join(top, n), os.W_OK, follow_symlinks=False)\n"
            "        for n in ['', *files] if not os.path.islink(os.path.join(top, n))): print(top)\n"
            "try:\n    open('/app/new', 'w')\nexcept PermissionError:\n    print('refused')\n"
        )
        done = image.run("/app/bin/python", "-c", program)
        assert done.returncode == 0, done.stderr
        *writable, refused = done.stdout.splitlines()
        assert refused == "refused"
        assert set(writable) <= {"/tmp", "/var/tmp", "/run/lock"}  # everybody's, and of the base

    def test_its_list_of_contents_is_the_lock_files(self, image: Image) -> None:
        assert image.sbom["bomFormat"] == "CycloneDX"
        listed = {part["name"].lower().replace("_", "-"): part["version"] for part in image.sbom["components"]}
        locked = dict(
            re.findall(r"^([a-z0-9_.-]+)==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
        )
        assert listed.pop("tenure", __version__) == __version__
        assert listed
        assert listed.items() <= locked.items()
        assert {"kopf", "aiohttp", "kubernetes", "pydantic"} <= listed.keys()


def test_values_are_written_as_yamllint_likes() -> None:
    own = {"indentation": {"indent-sequences": False}, "line-length": {"max": 160}}
    rules = {"extends": "default", "rules": {**own, "document-start": "disable", "comments": "disable"}}
    files = [CHART / "values.yaml", CHART / "Chart.yaml", *sorted((CHART / "ci").glob("*.yaml"))]
    done = subprocess.run(
        [Path(sys.executable).with_name("yamllint"), "--strict", "-d", yaml.safe_dump(rules), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0)
