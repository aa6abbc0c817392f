"""List of the image's packages: complete, valid, and the same each time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.supply_chain import locks
from tests.supply_chain.sbom import DOCKERFILE, bill_of_materials, image_environment
from tests.support.processes import ROOT

LOCKED = f" \\\n    --hash=sha256:{'0' * 64}\n    # via morango-celery (pyproject.toml)\n"


@pytest.fixture(scope="module")
def text() -> str:
    return bill_of_materials()


@pytest.fixture(scope="module")
def components(text: str) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in json.loads(text)["components"]}


def test_it_is_valid(text: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_every_locked_package_is_listed_with_its_version_and_hashes(
    components: dict[str, dict[str, Any]],
) -> None:
    lock = locks.IMAGE.read_text()
    pinned = dict(re.findall(r"^([a-z\d-]+)==(\S+)", lock, re.MULTILINE))

    assert {name: component["version"] for name, component in components.items()} == pinned
    for name, component in components.items():
        assert component["purl"] == f"pkg:pypi/{name}@{pinned[name]}"
    hashes = [entry["content"] for component in components.values() for entry in component["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"--hash=sha256:(\w+)", lock))


def test_list_describes_the_package_itself(text: str) -> None:
    about = json.loads(text)["metadata"]["component"]

    assert (about["name"], about["type"]) == ("morango-celery", "application")
    assert f'version = "{about["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert about["licenses"][0]["license"]["id"] == "MIT"


def test_list_tells_the_dependencies_between_packages(text: str) -> None:
    bom = json.loads(text)
    name_of = {component["bom-ref"]: component["name"] for component in bom["components"]}
    needs = {
        name_of.get(entry["ref"], "this"): {name_of[other] for other in entry.get("dependsOn", [])}
        for entry in bom["dependencies"]
    }

    assert set(needs) == {"this", *name_of.values()}
    assert {"celery", "django", "morango", "zstandard"} <= needs["this"]
    assert {"kombu", "vine"} <= needs["celery"]
    assert "vine" not in needs["this"]
    assert needs["six"] == set()


def test_licences_are_those_that_packages_declare(components: dict[str, dict[str, Any]]) -> None:
    def licence(name: str) -> str:
        (entry,) = components[name]["licenses"]
        about = entry.get("license", entry)
        declared: str = about.get("id") or about.get("expression") or about["name"]
        return declared

    assert licence("redis") == "MIT"
    assert licence("cryptography") == "Apache-2.0 OR BSD-3-Clause"
    assert licence("celery") == "BSD-3-Clause"
    assert licence("sqlparse") == "BSD License"  # a classifier


def test_packages_of_other_systems_are_excluded(tmp_path: Path) -> None:
    markers = {
        "here": "",
        "elsewhere": " ; sys_platform == 'win32'",
        "too-old": " ; python_full_version < '3.11.3'",
        "not-elsewhere": " ; platform_python_implementation != 'PyPy'",
    }
    lock = tmp_path / "requirements.lock"
    lock.write_text("".join(f"{name}==1{marker}{LOCKED}" for name, marker in markers.items()))

    scopes = {
        component["name"]: component["scope"]
        for component in json.loads(bill_of_materials(lock))["components"]
    }

    excluded = {name for name, scope in scopes.items() if scope == "excluded"}
    assert excluded == {"elsewhere", "too-old"}
    image = f"FROM python:{image_environment()['python_full_version']}-"
    assert image in DOCKERFILE.read_text()


def test_the_same_locks_make_the_same_bytes(text: str, tmp_path: Path) -> None:
    for number in ("1", "2"):
        path = tmp_path / number / "list.json"
        subprocess.run(
            [sys.executable, "-m", "tests.supply_chain.sbom", str(path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": number, "TZ": f"UTC-{number}"},
            check=True,
        )
        assert path.read_text() == text
    assert "timestamp" not in text


def test_another_lock_makes_a_list_with_another_number(text: str, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"celery==5.7.0{LOCKED}")

    assert json.loads(bill_of_materials(lock))["serialNumber"] != json.loads(text)["serialNumber"]
