"""tools/set_up.py and tools/workspace.py: what is done when, and what is said when it fails."""

import shutil
from pathlib import Path

import pytest
from set_up import build_key, install_packages, sourced_ros, without_ros
from workspace import DiskFullError, SetUpError, Workspace, failure

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("setup.py", "setup.cfg", "package.xml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "tools" / "requirements", tmp_path / "tools" / "requirements")
    (tmp_path / "launch").mkdir()
    (tmp_path / "grpo_ros").mkdir()
    (tmp_path / "grpo_ros" / "__init__.py").touch()
    (tmp_path / ".venv").mkdir()
    return Workspace(tmp_path)


def test_a_finished_step_is_skipped_until_its_key_changes(workspace: Workspace) -> None:
    calls: list[str] = []
    assert workspace.step("build", "one", lambda: calls.append("first"))
    assert not workspace.step("build", "one", lambda: calls.append("second"))
    assert workspace.step("build", "two", lambda: calls.append("third"))
    assert calls == ["first", "third"]


def test_a_step_that_fails_is_done_again(workspace: Workspace) -> None:
    def fail() -> None:
        raise SetUpError("no")

    with pytest.raises(SetUpError):
        workspace.step("build", "one", fail)
    assert workspace.step("build", "one", lambda: None)


def test_a_damaged_state_file_means_that_nothing_is_done(workspace: Workspace) -> None:
    (workspace.venv / "set_up.json").write_text('{"build": ')
    assert workspace.keys() == {}


def test_a_package_set_called_like_a_step_does_not_hide_it(workspace: Workspace) -> None:
    """Regression: the requirements `build` and the step `build` shared one key."""
    workspace.record("build", "of colcon")
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("set_up.install", lambda *_: done.append("installed"))
        patch.setattr("set_up.NEEDED_GB", 0)
        assert install_packages(workspace, ["runtime", "build"], [])
        assert not install_packages(workspace, ["runtime", "build"], [])
    assert done == ["installed"]
    assert workspace.keys()["build"] == "of colcon"


def test_an_edit_of_code_needs_no_build_but_a_new_launch_file_does(workspace: Workspace) -> None:
    before = build_key(workspace)
    (workspace.root / "grpo_ros" / "__init__.py").write_text("value = 1\n")
    assert build_key(workspace) == before
    (workspace.root / "launch" / "new.launch.py").touch()
    after = build_key(workspace)
    assert after != before
    (workspace.root / "launch" / "new.launch.py").write_text("edited, and linked\n")
    assert build_key(workspace) == after


@pytest.mark.parametrize("name", ["setup.py", "setup.cfg", "package.xml"])
def test_an_edit_of_the_package_description_needs_a_build(workspace: Workspace, name: str) -> None:
    before = build_key(workspace)
    with (workspace.root / name).open("a") as file:
        file.write("\n")
    assert build_key(workspace) != before


def test_an_unknown_extra_names_the_known_ones(workspace: Workspace) -> None:
    with pytest.raises(SetUpError, match=r"isaac'.*choose from browser, build, gr00t, isaaclab"):
        install_packages(workspace, ["runtime"], ["isaac"])


def test_too_small_a_disk_is_refused_before_anything_is_downloaded(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("set_up.NEEDED_GB", 10**9)
    with pytest.raises(DiskFullError, match="Remedy: free some"):
        install_packages(workspace, ["runtime"], [])


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("OSError: [Errno 28] No space left on device", "free 8 GB"),
        ("error: failed to write\n  Caused by: Disk quota exceeded (os error 122)", "free 8 GB"),
        ("NewConnectionError: [Errno 111] Connection refused\nERROR: No matching", "HTTPS_PROXY"),
        ("  Caused by: dns error: Name or service not known", "HTTPS_PROXY"),
        ("one\nerror: No solution found\nhint: two", "error: No solution found"),
        ("", "it printed nothing"),
    ],
)
def test_a_failure_becomes_one_line_with_its_remedy(
    tmp_path: Path, output: str, remedy: str
) -> None:
    line = str(failure("installing", output, tmp_path))
    assert line.startswith("installing")
    assert remedy in line
    assert "\n" not in line


def test_a_failing_command_is_logged_in_full(workspace: Workspace) -> None:
    with pytest.raises(SetUpError, match="trying failed: an error"):
        workspace.run("trying", ["sh", "-c", "echo more; echo an error; exit 3"])
    assert "more\nan error\n" in workspace.log.read_text()


def test_emptying_keeps_the_folder_itself_and_what_links_lead_to(
    workspace: Workspace, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (workspace.venv / "lib").mkdir()
    (workspace.venv / "lib64").symlink_to(elsewhere)
    workspace.empty()
    assert list(workspace.venv.iterdir()) == []
    assert (elsewhere / "kept").exists()


def test_only_an_installed_jazzy_counts_as_sourced(tmp_path: Path) -> None:
    (tmp_path / "share" / "rclpy").mkdir(parents=True)
    env = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": f"/overlay:{tmp_path}"}
    assert sourced_ros(env) is None  # no setup.bash: the ROS of a wheel
    (tmp_path / "setup.bash").touch()
    assert sourced_ros(env) == tmp_path
    assert sourced_ros({**env, "ROS_DISTRO": "humble"}) is None
    assert sourced_ros({}) is None


def test_a_sourced_ros_does_not_leak_into_installs() -> None:
    env = {"PYTHONPATH": "/ros", "LD_LIBRARY_PATH": "/ros/lib", "HOME": "/home", "TMPDIR": "/t"}
    assert without_ros(env) == {"HOME": "/home", "TMPDIR": "/t"}
