from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from tests.world import World

FIELDS = "keypair { id name publicKey fingerprint } privateKey"


def openssh(key: object, comment: str = "") -> str:
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()  # type: ignore[attr-defined]  # any private key
    return f"{public} {comment}".rstrip()


@pytest.mark.parametrize("kind", ["ED25519", "RSA"])
def test_a_generated_key_works_and_its_private_part_is_shown_once(world: World, tmp_path: Path, kind: str) -> None:
    alice = world.member(world.tenant())
    given = {"name": "k", "type": kind, "idempotencyKey": "once"}
    made = alice.do("keypairCreate", FIELDS, **given)
    private = load_ssh_private_key(made["privateKey"].encode(), None)
    assert openssh(private) == made["keypair"]["publicKey"]
    file = tmp_path / "k.pub"
    file.write_text(made["keypair"]["publicKey"] + "\n")
    told = subprocess.run(["ssh-keygen", "-lf", str(file)], capture_output=True, text=True, check=True).stdout
    assert told.split()[1] == made["keypair"]["fingerprint"]
    again = alice.do("keypairCreate", FIELDS, **given)
    assert (again["keypair"], again["privateKey"]) == (made["keypair"], None)
    with world.db.engine.connect() as connection:
        for table in ("keypair", "audit_record", "idempotency_key", "event"):
            kept = str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())  # noqa: S608 - names of our tables
            assert "PRIVATE KEY" not in kept


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["ed25519", "ecdsa", "rsa"],
)
def test_keys_are_imported(world: World, key: object) -> None:
    alice = world.member(world.tenant())
    text = openssh(key, "alice@example.org")
    made = alice.do("keypairCreate", FIELDS, name="a@b.c", publicKey=f"  {text}  ")
    assert (made["keypair"]["publicKey"], made["privateKey"]) == (text, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ== x",
        openssh(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505 - to be refused
        openssh(dsa.generate_private_key(key_size=1024)),  # noqa: S505 - to be refused
        openssh(ed25519.Ed25519PrivateKey.generate(), 'x"\nevil: yes'),
        openssh(ed25519.Ed25519PrivateKey.generate()) + "\n" + openssh(ed25519.Ed25519PrivateKey.generate()),
    ],
    ids=["empty", "nonsense", "cut", "hollow", "short-rsa", "dsa", "odd-comment", "two"],
)
def test_what_is_no_safe_key_is_refused(world: World, text: str) -> None:
    alice = world.member(world.tenant())
    assert alice.refused("keypairCreate", name="k", publicKey=text) == [("INVALID", ["publicKey"])]
    assert alice.ok("{ keypairs { totalCount } }")["keypairs"]["totalCount"] == 0


def test_keypairs_are_ones_own(world: World) -> None:
    tenant = world.tenant()
    alice, bob = world.member(tenant), world.member(tenant)
    made = alice.do("keypairCreate", FIELDS, name="k")["keypair"]["id"]
    assert alice.refused("keypairCreate", name="k") == [("CONFLICT", ["name"])]
    bob.do("keypairCreate", FIELDS, name="k")
    ask = "query($id: ID!) { keypair(id: $id) { name } }"
    assert bob.ok(ask, id=made)["keypair"] is None
    assert world.admin.ok(ask, id=made)["keypair"] is None
    assert bob.refused("keypairDelete", id=made) == [("NOT_FOUND", ["id"])]
    alice.do("keypairDelete", "id", id=made)
    assert alice.ok(ask, id=made)["keypair"] is None
