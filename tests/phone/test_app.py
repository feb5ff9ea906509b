"""What can be held against each other of the app that is built in Android Studio and not here."""

import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

BRIDGE = Path(__file__).parents[2] / "android_bridge"
APP = BRIDGE / "app"
ANDROID = "{http://schemas.android.com/apk/res/android}"
MAVEN = "{http://maven.apache.org/POM/4.0.0}"
PHONE = BRIDGE / "agent-android" / "src" / "main" / "kotlin" / "org" / "edvit" / "phone"


def tree(file: Path) -> ET.Element:
    """A file of this repository."""
    return ET.parse(file).getroot()  # noqa: S314


@pytest.fixture(scope="module")
def manifest() -> ET.Element:
    return tree(APP / "src" / "main" / "AndroidManifest.xml")


@pytest.fixture(scope="module")
def catalogue() -> dict[str, Any]:
    return tomllib.loads((APP / "gradle" / "libs.versions.toml").read_text())


@pytest.fixture(scope="module")
def gradle() -> str:
    return (APP / "build.gradle.kts").read_text()


def properties() -> dict[str, str]:
    """Every version in the Maven projects, by its name."""
    found = {}
    for file in ("pom.xml", "agent-core/pom.xml", "agent-android/pom.xml"):
        for each in tree(BRIDGE / file).iterfind(f"{MAVEN}properties/*"):
            found[each.tag.removeprefix(MAVEN)] = each.text or ""
    return found


def dependencies(module: str) -> set[tuple[str, str]]:
    """Group and name of what a Maven module needs when it runs on a phone."""
    desktop = {"jna", "jmdns", "slf4j-jdk14", "picocli"}
    found = set()
    for each in tree(BRIDGE / module / "pom.xml").iterfind(f"{MAVEN}dependencies/{MAVEN}dependency"):
        group, name, scope = (
            each.findtext(f"{MAVEN}{tag}", "") for tag in ("groupId", "artifactId", "scope")
        )
        if scope in ("", "compile") and name not in desktop and group != "org.edvit":
            found.add((group, name))
    return found


def permissions(manifest: ET.Element) -> set[str]:
    return {each.get(f"{ANDROID}name", "") for each in manifest.iterfind("uses-permission")}


def component(manifest: ET.Element, kind: str, name: str) -> ET.Element:
    found = [each for each in manifest.iterfind(f"application/{kind}") if each.get(f"{ANDROID}name") == name]
    assert len(found) == 1, name
    return found[0]


class TestVersions:
    def test_equal_those_that_were_tested(self, catalogue: dict[str, Any]) -> None:
        known = properties()
        ours = {
            name: version
            for name, version in catalogue["versions"].items()
            if name not in ("android-plugin", "litert")
        }
        assert ours == {name: known[f"{name}.version"] for name in ours}

    def test_everything_that_the_agent_needs_is_there(self, catalogue: dict[str, Any], gradle: str) -> None:
        modules = {each["module"]: name for name, each in catalogue["libraries"].items()}
        needed = dependencies("agent-core") | dependencies("agent-android")
        assert ("io.grpc", "grpc-okhttp") in needed
        for group, name in needed:
            alias = modules[f"{group}:{name}"].replace("-", ".")
            assert f"implementation(libs.{alias})" in gradle

    def test_the_jars_are_those_that_maven_makes(self, gradle: str) -> None:
        for jar in re.findall(r'"\.\./([\w-]+)/target/([\w-]+)\.jar"', gradle):
            pom = (BRIDGE / jar[0] / "pom.xml").read_text()
            name = jar[1].removesuffix("-thin")
            assert f"<finalName>{name}</finalName>" in pom
            assert name == jar[1] or "<classifier>thin</classifier>" in pom

    def test_the_app_is_the_agents_version(self, gradle: str) -> None:
        version = tree(BRIDGE / "pom.xml").findtext(f"{MAVEN}version")
        assert f'versionName = "{version}"' in gradle


class TestPlatform:
    def test_releases(self, gradle: str) -> None:
        assert "minSdk = 29\n" in gradle  # the platform's TLS 1.3
        assert "targetSdk = 36\n" in gradle
        assert "compileSdk = 36\n" in gradle

    def test_libraries_are_loaded_from_the_package(self, gradle: str) -> None:
        assert "useLegacyPackaging = false" in gradle


class TestManifest:
    def test_every_permission_that_is_asked_for_is_declared(self, manifest: ET.Element) -> None:
        asked = set(re.findall(r'"(android\.permission\.[A-Z_]+)"', (PHONE / "Permissions.kt").read_text()))
        assert len(asked) == 3
        assert asked < permissions(manifest)

    def test_the_service_is_of_the_type_that_the_code_names(self, manifest: ET.Element) -> None:
        service = component(manifest, "service", "org.edvit.phone.PhoneService")
        assert service.get(f"{ANDROID}foregroundServiceType") == "connectedDevice"
        assert (
            "ServiceInfo.FOREGROUND_SERVICE_TYPE_CONNECTED_DEVICE" in (PHONE / "PhoneService.kt").read_text()
        )
        # Without one of the last three Android 14 ends the app when such a service starts.
        network = {
            f"android.permission.CHANGE_{name}_STATE" for name in ("NETWORK", "WIFI", "WIFI_MULTICAST")
        }
        needed = {
            "android.permission.FOREGROUND_SERVICE",
            "android.permission.FOREGROUND_SERVICE_CONNECTED_DEVICE",
        }
        assert needed < permissions(manifest)
        assert network & permissions(manifest)

    def test_the_proof_has_a_process_of_its_own(self, manifest: ET.Element) -> None:
        assert component(manifest, "service", "org.edvit.phone.ProofService").get(f"{ANDROID}process")

    def test_what_others_can_reach_is_the_screen_and_the_start(self, manifest: ET.Element) -> None:
        components = [
            each for kind in ("activity", "service", "receiver", "provider") for each in manifest.iter(kind)
        ]
        open_to_all = {
            each.get(f"{ANDROID}name") for each in components if each.get(f"{ANDROID}exported") == "true"
        }
        assert open_to_all == {"org.edvit.phone.MainScreen", "org.edvit.phone.StartReceiver"}
        assert all(each.get(f"{ANDROID}exported") in ("true", "false") for each in components)

    def test_every_class_is_there(self, manifest: ET.Element) -> None:
        code = "\n".join(path.read_text() for path in PHONE.glob("*.kt"))
        for kind in ("activity", "service", "receiver"):
            for each in manifest.iter(kind):
                name = each.get(f"{ANDROID}name", "").removeprefix("org.edvit.phone.")
                assert re.search(rf"^class {name}\b", code, re.MULTILINE), name

    def test_keys_go_into_no_backup(self, manifest: ET.Element) -> None:
        application = manifest.find("application")
        assert application is not None
        assert application.get(f"{ANDROID}allowBackup") == "false"
        rules = tree(APP / "src" / "main" / "res" / "xml" / "no_backup.xml")
        for kind in ("cloud-backup", "device-transfer"):
            assert {each.get("domain") for each in rules.iterfind(f"{kind}/exclude")} >= {
                "file",
                "sharedpref",
            }
