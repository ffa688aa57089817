"""A keystore as `ros2 security` makes it, from one of our policies, with openssl alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

OPENSSL = shutil.which("openssl")
VALID = """<validity><not_before>2020-01-01T00:00:00</not_before>
<not_after>2040-01-01T00:00:00</not_after></validity>"""
DOMAINS = "<domains><id_range><min>0</min><max>230</max></id_range></domains>"
GOVERNANCE = f"""<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:noNamespaceSchemaLocation="http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_governance.xsd">
<domain_access_rules><domain_rule>{DOMAINS}
<allow_unauthenticated_participants>false</allow_unauthenticated_participants>
<enable_join_access_control>true</enable_join_access_control>
<discovery_protection_kind>ENCRYPT</discovery_protection_kind>
<liveliness_protection_kind>ENCRYPT</liveliness_protection_kind>
<rtps_protection_kind>SIGN</rtps_protection_kind>
<topic_access_rules><topic_rule><topic_expression>*</topic_expression>
<enable_discovery_protection>true</enable_discovery_protection>
<enable_liveliness_protection>true</enable_liveliness_protection>
<enable_read_access_control>true</enable_read_access_control>
<enable_write_access_control>true</enable_write_access_control>
<metadata_protection_kind>ENCRYPT</metadata_protection_kind>
<data_protection_kind>ENCRYPT</data_protection_kind>
</topic_rule></topic_access_rules></domain_rule></domain_access_rules></dds>
"""
SERVICES_OF_ACTION = ("send_goal", "cancel_goal", "get_result")
TOPICS_OF_ACTION = ("feedback", "status")


def make_keystore(folder: Path, policy: Path) -> Path:
    """Write keys, certificates, governance and permissions of every enclave of a policy."""
    folder.mkdir(parents=True)
    key, cert = folder / "ca.key.pem", folder / "ca.cert.pem"
    new_key(key)
    openssl("req", "-x509", "-new", "-key", key, "-days", "3650", "-subj", "/CN=ca", "-out", cert)
    governance = signed(folder, "governance", GOVERNANCE)
    for enclave in ET.parse(policy).getroot().iter("enclave"):
        path = enclave.attrib["path"]
        home = folder / "enclaves" / path.strip("/")
        home.mkdir(parents=True)
        new_key(home / "key.pem")
        request = home / "request.pem"
        openssl(
            "req",
            "-new",
            "-key",
            home / "key.pem",
            "-subj",
            f"/CN={path.replace('/', '\\/')}",
            "-out",
            request,
        )
        openssl(
            "x509",
            "-req",
            "-in",
            request,
            "-CA",
            cert,
            "-CAkey",
            key,
            "-CAcreateserial",
            "-days",
            "3650",
            "-out",
            home / "cert.pem",
        )
        subject = openssl(
            "x509", "-in", home / "cert.pem", "-noout", "-subject", "-nameopt", "RFC2253"
        )
        text = permissions(path, subject.strip().removeprefix("subject="), enclave)
        signed(home, "permissions", text)
        shutil.copy(governance, home / "governance.p7s")
        for name in ("identity_ca", "permissions_ca"):
            shutil.copy(cert, home / f"{name}.cert.pem")
    return folder


def openssl(*arguments: object) -> str:
    """Run the machine's openssl, which must not load ROS's own libcrypto."""
    environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    done = subprocess.run(
        [str(OPENSSL), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def new_key(path: Path) -> None:
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)


def signed(folder: Path, name: str, text: str) -> Path:
    """Return the S/MIME file of a document, signed by the authority above it."""
    root = next(p for p in (folder, *folder.parents) if (p / "ca.key.pem").is_file())
    source, target = folder / f"{name}.xml", folder / f"{name}.p7s"
    source.write_text(text)
    openssl(
        "smime",
        "-sign",
        "-text",
        "-in",
        source,
        "-out",
        target,
        "-signer",
        root / "ca.cert.pem",
        "-inkey",
        root / "ca.key.pem",
    )
    return target


def permissions(path: str, subject: str, enclave: ET.Element) -> str:
    """Return an enclave's permissions as DDS has them."""
    publish, subscribe = dds_names(enclave)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:noNamespaceSchemaLocation="http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_permissions.xsd">
<permissions><grant name="{path}"><subject_name>{subject}</subject_name>{VALID}
<allow_rule>{DOMAINS}
<publish><topics>{rules(publish)}</topics></publish>
<subscribe><topics>{rules(subscribe)}</topics></subscribe>
</allow_rule><default>DENY</default></grant></permissions></dds>
"""


def rules(names: Sequence[str]) -> str:
    return "\n".join(f"<topic>{name}</topic>" for name in names)


def dds_names(enclave: ET.Element) -> tuple[list[str], list[str]]:
    """Return the DDS topics that an enclave publishes and subscribes to."""
    publish, subscribe = {"ros_discovery_info"}, {"ros_discovery_info"}
    for profile in enclave.iter("profile"):
        for group in profile:
            for element in group:
                name = resolved(str(element.text), profile.attrib["ns"], profile.attrib["node"])
                is_ours = bool({"publish", "reply", "execute"} & set(group.attrib))
                ours, theirs = (publish, subscribe) if is_ours else (subscribe, publish)
                if group.tag == "topics":
                    ours.add(f"rt{name}")
                elif group.tag == "services":
                    ours.add(f"rr{name}Reply")
                    theirs.add(f"rq{name}Request")
                else:
                    ours |= {f"rt{name}/_action/{each}" for each in TOPICS_OF_ACTION}
                    ours |= {f"rr{name}/_action/{each}Reply" for each in SERVICES_OF_ACTION}
                    theirs |= {f"rq{name}/_action/{each}Request" for each in SERVICES_OF_ACTION}
    return sorted(publish), sorted(subscribe)


def resolved(text: str, namespace: str, node: str) -> str:
    """Return a name of a policy as a full name."""
    root = namespace.rstrip("/")
    if text.startswith("~"):
        return f"{root}/{node}{text[1:]}"
    return text if text.startswith("/") else f"{root}/{text}"
