import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from modelward.errors import ExitCode
from tests.repo_tools.site import MINIMAL, MODELS, PlainTuf, Site, files_of, run
from tests.simulator.world import Done

ROLES = ("root", "targets", "snapshot", "timestamp", "channels", "model-alpha", "model-beta")


def init(place: Path, *args: object) -> Done:
    return run(
        *("init", place / "repo", "--policy", MINIMAL, "--keys", place / "keys"),
        *("--plaintext-keys", *args),
    )


def test_plain_tuf_loads_it(template: Site, plain_tuf: PlainTuf) -> None:
    targets = plain_tuf(template.directory)
    assert set(targets) == {
        "policy.json",
        *(f"channels/{name}.json" for name in ("stable", "beta")),
        *(f"policies/{name}.json" for name in MODELS),
        *(f"layouts/{name}.json" for name in MODELS),
    }


def test_roles_and_thresholds_are_those_of_the_policy(template: Site) -> None:
    root = json.loads((template.directory / "metadata/1.root.json").read_bytes())["signed"]
    assert root["consistent_snapshot"] is True
    assert {
        name: (len(role["keyids"]), role["threshold"]) for name, role in root["roles"].items()
    } == {
        "root": (3, 2),
        "targets": (3, 2),
        "snapshot": (1, 1),
        "timestamp": (1, 1),
    }
    assert not set(root["roles"]["root"]["keyids"]) & set(root["roles"]["targets"]["keyids"])
    delegations = template.metadata("targets").signed.delegations
    assert {name: role.paths for name, role in delegations.roles.items()} == {
        "channels": ["channels/*"],
        "model-alpha": ["models/alpha/*/*"],
        "model-beta": ["models/beta/*/*"],
    }
    assert all(role.terminating for role in delegations.roles.values())


def test_every_available_holder_signed(template: Site) -> None:
    root = json.loads((template.directory / "metadata/1.root.json").read_bytes())
    assert len(root["signatures"]) == 3
    assert len(template.metadata("targets").signatures) == 3
    status = template.run("status", "--json").json
    assert {item["name"]: item["signed"] for item in status["roles"]} == {
        **dict.fromkeys(("root", "targets", "layout of alpha", "layout of beta"), 3),
        **dict.fromkeys(("snapshot", "timestamp", "channels", "model-alpha", "model-beta"), 1),
    }


def test_snapshot_and_timestamp_list_length_and_sha256(template: Site) -> None:
    snapshot = template.metadata("snapshot").signed
    assert set(snapshot.meta) == {
        "targets.json",
        "channels.json",
        "model-alpha.json",
        "model-beta.json",
    }
    for name, meta in snapshot.meta.items():
        data = (template.directory / "metadata" / f"{meta.version}.{name}").read_bytes()
        assert meta.length == len(data)
        assert set(meta.hashes) == {"sha256"}
        meta.verify_length_and_hashes(data)
    meta = template.metadata("timestamp").signed.snapshot_meta
    assert meta.length
    assert set(meta.hashes) == {"sha256"}


def test_keys_lie_in_one_folder_a_holder_and_are_their_owners_only(template: Site) -> None:
    names = {str(path.relative_to(template.keys)) for path in template.keys.rglob("*.key")}
    assert names == {
        *(f"{holder}/{name}.key" for holder in ("alice", "bob", "carol") for name in ROLES[:2]),
        *(f"lead-{letter}/layout.key" for letter in "abc"),
        *("repository/snapshot.key", "repository/timestamp.key", "operator/channels.key"),
        *("release-ci/model-alpha.key", "release-ci/model-beta.key"),
        *("packager/functionary.key", "approver/functionary.key"),
    }
    for path in template.keys.rglob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in template.keys.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_no_private_key_is_in_the_repository(template: Site) -> None:
    for path in template.directory.rglob("*"):
        assert path.is_dir() or b"PRIVATE KEY" not in path.read_bytes()


def test_it_tells_who_holds_what_and_what_to_do_next(tmp_path: Path) -> None:
    done = init(tmp_path, "--model", "m")
    assert done.code == 0
    for text in (
        "NOT encrypted",
        "alice/           root, targets",
        "root                   2 of alice, bob, carol",
        "model-m                1 of release-ci",
        "metadata/1.root.json",
        "modelward-repo refresh",
        "modelward-repo release m 1.0.0 FOLDER",
    ):
        assert text in done.out


def test_json(tmp_path: Path) -> None:
    done = init(tmp_path, "--model", "m", "--json")
    assert done.json["root"] == str(tmp_path / "repo/metadata/1.root.json")
    assert len(done.json["made"]) == 15
    assert done.json["models"] == ["m"]


def test_an_existing_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    done = init(tmp_path, "--model", "m")
    assert done.code == ExitCode.USAGE
    assert "exists already" in done.err
    assert not (tmp_path / "keys").exists()
    assert not list((tmp_path / "repo").iterdir())


def test_a_policy_that_makes_no_sense_makes_no_keys(tmp_path: Path) -> None:
    text = MINIMAL.read_text().replace("threshold = 2", "threshold = 4", 1)
    (tmp_path / "policy.toml").write_text(text)
    done = run("init", tmp_path / "repo", "--policy", tmp_path / "policy.toml", "--plaintext-keys")
    assert done.code == ExitCode.USAGE
    assert f"{tmp_path}/policy.toml: roles.root.threshold: is 4" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["policy.toml"]


def test_a_missing_layout_makes_no_keys(tmp_path: Path) -> None:
    shutil.copy(MINIMAL, tmp_path / "policy.toml")
    args = ("--policy", tmp_path / "policy.toml", "--plaintext-keys", "--model", "m")
    done = run("init", tmp_path / "repo", *args)
    assert done.code == ExitCode.USAGE
    assert "layouts/minimal.toml cannot be read" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["policy.toml"]


def test_all_or_nothing(tmp_path: Path, template: Site) -> None:
    """Too few private keys of a role: found out late, but nothing is left of the attempt."""
    shutil.copytree(template.keys, tmp_path / "keys")
    for holder in ("alice", "bob"):
        (tmp_path / "keys" / holder / "targets.key").unlink()
    done = init(tmp_path, "--model", "alpha")
    assert done.code == ExitCode.USAGE
    assert "2 of alice, bob, carol must sign as 'targets'" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_killed_anywhere_there_is_a_whole_repository_or_none(
    tmp_path: Path, template: Site, plain_tuf: PlainTuf
) -> None:
    shutil.copytree(template.keys, tmp_path / "start/keys")
    done = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("kill_everywhere.py"))),
            *(str(tmp_path / "start"), str(tmp_path / "work")),
            *("init", "{}/repo", "--policy", str(MINIMAL), "--model", "alpha"),
            *("--keys", "{}/keys", "--plaintext-keys"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    points = int(done.stdout.rsplit("points: ", 1)[1])
    made = [point for point in range(1, points + 1) if (tmp_path / f"work/{point}/repo").exists()]
    assert points > 40
    assert points - 2 <= made[0]
    assert made[-1] == points
    for point in made:
        assert "policies/alpha.json" in plain_tuf(tmp_path / f"work/{point}/repo")
    half = made[0] - 1
    assert list((tmp_path / f"work/{half}").glob(".repo.partial-*"))
    assert init(tmp_path / f"work/{half}", "--model", "alpha").code == 0


def test_a_key_shared_by_root_and_targets_is_refused(tmp_path: Path, template: Site) -> None:
    shutil.copytree(template.keys, tmp_path / "keys")
    for suffix in ("key", "pub"):
        alice = tmp_path / "keys/alice"
        shutil.copy(alice / f"root.{suffix}", alice / f"targets.{suffix}")
    done = init(tmp_path, "--model", "alpha")
    assert done.code == ExitCode.USAGE
    assert "'root' and 'targets' share the key" in done.err


def test_an_owner_who_is_a_functionary_is_refused(tmp_path: Path, template: Site) -> None:
    shutil.copytree(template.keys, tmp_path / "keys")
    for suffix in ("key", "pub"):
        shutil.copy(
            tmp_path / f"keys/lead-a/layout.{suffix}",
            tmp_path / f"keys/packager/functionary.{suffix}",
        )
    done = init(tmp_path, "--model", "alpha")
    assert done.code == ExitCode.USAGE
    assert "packager owns the layout" in done.err
    assert not (tmp_path / "repo").exists()


def test_holders_who_keep_their_private_keys_hand_in_public_ones(
    tmp_path: Path, template: Site, plain_tuf: PlainTuf
) -> None:
    shutil.copytree(template.keys, tmp_path / "keys")
    for name in ("carol/root", "carol/targets", "lead-c/layout", "packager/functionary"):
        (tmp_path / f"keys/{name}.key").unlink()
    done = init(tmp_path, "--model", "alpha")
    assert done.code == 0, done
    plain_tuf(tmp_path / "repo")
    site = Site(tmp_path / "repo", tmp_path / "keys")
    signed = {item["name"]: item["signed"] for item in site.run("status", "--json").json["roles"]}
    assert signed["root"] == signed["targets"] == signed["layout of alpha"] == 2


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    args = ("--policy", MINIMAL, "--plaintext-keys", "--keys", tmp_path / "keys")
    done = run("init", tmp_path / "file/repo", *args)
    assert done.code == ExitCode.USAGE
    assert "cannot be made: Not a directory" in done.err


def test_without_terminal_or_passphrase_file_it_says_both_ways(tmp_path: Path) -> None:
    done = run("init", tmp_path / "repo", "--policy", MINIMAL, "--keys", tmp_path / "keys")
    assert done.code == ExitCode.USAGE
    assert "--passphrase-file" in done.err
    assert "terminal" in done.err


def test_a_model_is_added(site: Site, plain_tuf: PlainTuf, folder: Path) -> None:
    site.release("alpha", "1.0", folder)
    before = plain_tuf(site.directory)
    done = site.run("model", "add", "gamma", "--policy", MINIMAL, "--plaintext-keys")
    assert done.code == 0, done
    after = plain_tuf(site.directory)
    assert {path: after[path] for path in before} == before
    assert {path for path in after if path not in before} == {
        "policies/gamma.json",
        "layouts/gamma.json",
    }
    site.release("gamma", "1.0", folder)
    plain_tuf(site.directory)


def test_a_model_is_not_added_twice_nor_without_targets_keys(site: Site) -> None:
    state = files_of(site.directory)
    args = ("--policy", MINIMAL, "--plaintext-keys")
    assert "already has a role 'model-alpha'" in site.run("model", "add", "alpha", *args).err
    for holder in ("alice", "bob"):
        (site.keys / holder / "targets.key").unlink()
    done = site.run("model", "add", "gamma", *args)
    assert done.code == ExitCode.USAGE
    assert "must sign as 'targets'" in done.err
    assert files_of(site.directory) == state


def test_no_key_of_a_person_is_made_when_a_model_is_added(site: Site) -> None:
    """Offline keys lie elsewhere: others in their place would be signed into the repository."""
    for path in (site.keys / "lead-a").iterdir():
        path.unlink()
    before = files_of(site.keys)
    done = site.run("model", "add", "gamma", "--policy", MINIMAL, "--plaintext-keys")
    assert done.code == ExitCode.USAGE
    assert "the key 'layout' of lead-a is not in" in done.err
    assert files_of(site.keys).items() - before.items() <= {
        item for item in files_of(site.keys).items() if "model-gamma" in item[0]
    }


def test_signers_of_models_are_declared(site: Site, tmp_path: Path, folder: Path) -> None:
    """A policy that names signers demands an OpenSSF model signature of every release."""
    policy = tmp_path / "policy.toml"
    text = (
        Path(MINIMAL)
        .read_text("utf-8")
        .replace('"../layouts', f'"{Path(MINIMAL).parents[1]}/layouts')
    )
    policy.write_text(text + '\n[models.signed]\nsigners = ["packager"]\n', "utf-8")
    key = site.keys / "packager/model-signing.key"
    made = site.run("key", "create", "packager/model-signing", "--scheme", "ecdsa-sha2-nistp256",
                    "--plaintext")  # fmt: skip
    assert made.code == 0, made
    done = site.run("model", "add", "signed", "--policy", policy, "--plaintext-keys")
    assert done.code == 0, done
    unsigned = site.run("release", "signed", "1.0", folder)
    assert unsigned.code == ExitCode.REFUSED
    assert "has no OpenSSF model signature" in unsigned.err
    assert run("sign-model", folder, "--key", key).code == 0
    # The ticket is not among the files that were signed, and need not be: it is attested.
    assert site.run("release", "signed", "1.0", folder).code == 0


def test_other_users_web_servers_can_read_it(template: Site) -> None:
    if os.umask(0o022) not in (0o022, 0o002):
        pytest.skip("this user's umask hides files from others")
    for path in (template.directory / "metadata").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o004
