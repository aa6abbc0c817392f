"""Writer of the image's packages as a CycloneDX list: ``python -m tests.supply_chain.sbom FILE``.

From worker/requirements.lock and this package. The same locks make the same bytes.
"""

from __future__ import annotations

import re
import sys
import tomllib
import uuid
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from tests.supply_chain import locks
from tests.supply_chain.locks import PROJECT, Pin
from tests.support.processes import ROOT

DOCKERFILE = ROOT / "worker/Dockerfile"
NAMESPACE = uuid.UUID("9a68c33b-3a0c-4eb2-893e-647707e5d548")
"""Namespace of serial numbers, drawn once."""


def bill_of_materials(lock: Path = locks.IMAGE) -> str:
    """Return the list, in JSON."""
    bom = Bom(serial_number=uuid.UUID(int=0))
    bom.metadata.timestamp = None  # type: ignore[assignment]  # it may be left out
    bom.metadata.component = project = _project()
    pins = locks.read(lock)
    components = {pin.name: _component(pin) for pin in pins}
    bom.components.update(components.values())
    for name, component in {PROJECT: project, **components}.items():
        bom.register_dependency(component, [components[pin.name] for pin in pins if name in pin.needed_by])
    bom.serial_number = uuid.uuid5(NAMESPACE, _as_json(bom))
    return _as_json(bom)


def _as_json(bom: Bom) -> str:
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _project() -> Component:
    about = tomllib.loads((ROOT / PROJECT).read_text())["project"]
    return Component(
        type=ComponentType.APPLICATION,
        name=about["name"],
        version=about["version"],
        description=about["description"],
        licenses=_licenses([about["license"]]),
        bom_ref=f"{about['name']}@{about['version']}",
    )


def _component(pin: Pin) -> Component:
    url = PackageURL("pypi", name=pin.name, version=pin.version)
    is_installed = pin.marker is None or pin.marker.evaluate(image_environment())
    return Component(
        type=ComponentType.LIBRARY,
        name=pin.name,
        version=pin.version,
        purl=url,
        bom_ref=str(url),
        scope=ComponentScope.REQUIRED if is_installed else ComponentScope.EXCLUDED,
        # Of each file that it may come from: wheels for several systems, and the source
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in pin.hashes],
        licenses=_licenses(declared_licenses(pin)),
    )


def image_environment() -> dict[str, str]:
    """Return the values of markers in the image, independent of this machine."""
    versions = re.findall(r"^FROM python:(\d+\.\d+)(\.\d+)-", DOCKERFILE.read_text(), re.MULTILINE)
    (minor, patch), *_ = versions
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{minor}{patch}",
        "python_version": minor,
        "sys_platform": "linux",
    }


def declared_licenses(pin: Pin) -> list[str]:
    """Return the licences in a package's metadata; none if it isn't installed here in this version."""
    try:
        found: Distribution = distribution(pin.name)
    except PackageNotFoundError:
        return []
    about = found.metadata
    if found.version != pin.version:
        return []
    for field in ("License-Expression", "License"):
        for text in about.get_all(field) or []:
            if text.strip() and "\n" not in text:  # else it is the licence's text
                return [text.strip()]
    classifiers = about.get_all("Classifier") or []
    return [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: ")]


def _licenses(names: Iterable[str]) -> list[License]:
    declared = LicenseAcknowledgement.DECLARED
    return [LicenseFactory().make_from_string(name, license_acknowledgement=declared) for name in names]


def main(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(bill_of_materials(), encoding="utf-8")
    print(f"{path}: what the image contains")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
