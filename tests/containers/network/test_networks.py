"""Networks: names, subnets, addresses and who is in them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from dbt.containers.network.addresses import mac_text, parse_rate
from dbt.containers.network.errors import Conflict, Forbidden, Invalid, NetworkFailure, NotFound
from dbt.containers.network.networks import Networks
from dbt.containers.network.records import Attachment, Subnet
from dbt.daemon.database import Database


def no_routes() -> list[IPv4Network]:
    return []


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Networks]:
    made = Networks(str(tmp_path / "networks.db"), no_routes)
    yield made
    made.close()


def test_there_are_dockers_networks(networks: Networks) -> None:
    found = {network.name: (network.driver, str(network.subnet), str(network.gateway)) for network in networks.all()}
    assert found == {
        "bridge": ("bridge", "172.17.0.0/16", "172.17.0.1"),
        "host": ("host", "None", "None"),
        "none": ("null", "None", "None"),
    }


def test_networks_are_remembered(tmp_path: Path, networks: Networks) -> None:
    made = networks.create(
        "net",
        subnet=Subnet("10.5.0.0/16", "10.5.1.0/24", "10.5.0.9", {"printer": "10.5.1.1"}),
        internal=True,
        options={"rate": "1mbit"},
        labels={"a": "b"},
    )
    endpoint = networks.attach("c" * 64, Attachment("net", ("Box",)))
    again = Networks(str(tmp_path / "networks.db"), no_routes)
    assert again.find("net") == made
    assert again.endpoints(made) == [endpoint]
    assert (endpoint.address, endpoint.names) == (IPv4Address("10.5.1.0"), ("box",))  # of the range, not of the subnet
    assert networks.attach("d" * 64, Attachment("net")).address == IPv4Address("10.5.1.2")


def test_subnets_follow_each_other_and_keep_off_the_hosts_routes(tmp_path: Path) -> None:
    networks = Networks(str(tmp_path / "db"), lambda: [IPv4Network("172.19.4.0/24")])
    assert [str(networks.create(name).subnet) for name in ("n1", "n2")] == ["172.18.0.0/16", "172.20.0.0/16"]
    networks.remove("n1")
    assert str(networks.create("n3").subnet) == "172.18.0.0/16"


def test_there_is_an_end_of_subnets(networks: Networks) -> None:
    for number in range(14 + 16):
        networks.create(f"n{number}")
    with pytest.raises(NetworkFailure, match="non-overlapping IPv4 address pool"):
        networks.create("one-more")


def test_find_takes_ids_names_and_beginnings(networks: Networks) -> None:
    made = networks.create("net")
    assert networks.find("net") == networks.find(made.id) == networks.find(made.id[:20]) == made
    with pytest.raises(NotFound, match=r"^network nothing not found$"):
        networks.find("nothing")
    with pytest.raises(NotFound):
        networks.find("")
    named = networks.create(made.id[:12])  # a name goes before the beginning of an id
    assert networks.find(made.id[:12]) == named


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("bridge", Forbidden, "operation is not permitted on predefined bridge network"),
        ("net", Conflict, "network with name net already exists"),
        ("", NetworkFailure, "^invalid name: $"),
        ("../x", Invalid, "invalid name: "),
        ("a\0b", Invalid, "invalid name"),
    ],
)
def test_names_that_a_network_cannot_have(networks: Networks, name: str, kind: type[NetworkFailure], text: str) -> None:
    networks.create("net")
    with pytest.raises(kind, match=text):
        networks.create(name)


@pytest.mark.parametrize(
    ("subnet", "kind", "text"),
    [
        (Subnet("172.17.4.0/24"), Forbidden, "Pool overlaps with other one on this address space"),
        (Subnet("10.0.0.0/99"), Invalid, "invalid CIDR address: 10.0.0.0/99"),
        (Subnet("10.0.0.0"), Invalid, "invalid CIDR address: 10.0.0.0"),
        (Subnet("fd00::/64"), Invalid, "IPv4 addresses alone"),
        (Subnet("127.0.0.0/8"), Invalid, "no addresses of a network"),
        (Subnet("10.0.0.0/31"), Invalid, "8 to 30 bits"),
        (Subnet("10.0.0.0/24", gateway="10.0.1.1"), Invalid, "not in the subnet"),
        (Subnet("10.0.0.0/24", gateway="10.0.0.255"), Invalid, "not in the subnet"),
        (Subnet("10.0.0.0/24", pool="10.0.1.0/25"), Invalid, "not in the subnet"),
        (Subnet("10.0.0.0/24", reserved={"a": "x"}), Invalid, "no IPv4 address"),
        (Subnet(gateway="10.0.0.1"), Invalid, "needs a subnet"),
    ],
)
def test_subnets_that_a_network_cannot_have(
    networks: Networks, subnet: Subnet, kind: type[NetworkFailure], text: str
) -> None:
    with pytest.raises(kind, match=text):
        networks.create("net", subnet=subnet)
    assert len(networks.all()) == 3


def test_drivers_and_options_that_a_network_cannot_have(networks: Networks) -> None:
    with pytest.raises(Forbidden, match='only one instance of "host" network is allowed'):
        networks.create("net", "host")
    with pytest.raises(NotFound, match="overlay"):
        networks.create("net", "overlay")
    for option, value in (("rate", "much"), ("com.docker.network.driver.mtu", "9000")):
        with pytest.raises(Invalid):
            networks.create("net", options={option: value})


def test_addresses_follow_each_other_and_no_two_containers_are_alike(networks: Networks) -> None:
    first, second = (networks.attach(letter * 64, Attachment("bridge")) for letter in "ab")
    assert [str(one.address) for one in (first, second)] == ["172.17.0.2", "172.17.0.3"]
    assert [mac_text(one.mac) for one in (first, second)] == ["02:42:ac:11:00:02", "02:42:ac:11:00:03"]
    networks.detach_all("a" * 64)
    assert networks.attach("c" * 64, Attachment("bridge")).address == first.address
    with pytest.raises(Forbidden, match="02:42:ac:11:00:03 is already in use"):
        networks.attach("d" * 64, Attachment("bridge", mac="02:42:AC:11:00:03"))
    for mac in ("01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "02:42", "00:00:00:00:00:00"):
        with pytest.raises(Invalid, match="not a valid mac address"):
            networks.attach("d" * 64, Attachment("bridge", mac=mac))


def test_a_full_network(networks: Networks) -> None:
    networks.create("net", subnet=Subnet("10.0.0.0/30"))
    networks.attach("a" * 64, Attachment("net"))
    with pytest.raises(Forbidden, match="no available IPv4 addresses"):
        networks.attach("b" * 64, Attachment("net"))


def test_addresses_that_users_choose(networks: Networks) -> None:
    networks.create("net", subnet=Subnet("10.0.0.0/24"))
    networks.create("other")
    assert str(networks.attach("a" * 64, Attachment("net", address="10.0.0.7")).address) == "10.0.0.7"
    for network, address, text in (
        ("net", "10.0.0.7", "Address already in use"),
        ("net", "10.0.0.1", "Address already in use"),
        ("net", "10.0.1.7", "no configured subnet contains IP address 10.0.1.7"),
        ("bridge", "172.17.0.9", "supported on user defined networks only"),
        ("other", "172.18.0.9", "only when connecting to networks with user configured subnets"),
    ):
        with pytest.raises(NetworkFailure, match=text):
            networks.attach("b" * 64, Attachment(network, address=address))


def test_members_of_networks(networks: Networks) -> None:
    for number in range(5):
        networks.create(f"n{number}")
    cards = [networks.attach("a" * 64, Attachment(f"n{number}")).card for number in range(4)]
    assert cards == [0, 1, 2, 3]
    with pytest.raises(Forbidden, match="4 networks at most"):
        networks.attach("a" * 64, Attachment("n4"))
    with pytest.raises(Forbidden, match="already exists in network n0"):
        networks.attach("a" * 64, Attachment("n0"))
    networks.detach("a" * 64, networks.find("n1"))
    with pytest.raises(Forbidden, match="is not connected to network n1"):
        networks.detach("a" * 64, networks.find("n1"))
    assert networks.attach("a" * 64, Attachment("n4")).card == 1
    with pytest.raises(Forbidden, match="has active endpoints"):
        networks.remove("n0")
    with pytest.raises(Invalid, match="no interface of this host"):
        networks.attach("a" * 64, Attachment("host"))
    networks.detach_others(["b" * 64])
    assert networks.endpoints_of("a" * 64) == []
    assert {network.name for network in networks.prune()} == {f"n{number}" for number in range(5)}
    with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
        networks.remove("bridge")


def test_names_belong_to_networks(networks: Networks) -> None:
    for name in ("n1", "n2"):
        networks.create(name)
    one = networks.attach("a" * 64, Attachment("n1", ("web", "Alias", "aaaaaaaaaaaa")))
    other = networks.attach("b" * 64, Attachment("n1", ("db", "alias")))
    networks.attach("b" * 64, Attachment("n2", ("db",)))
    far = networks.attach("c" * 64, Attachment("n2", ("far",)))
    assert networks.addresses_of("a" * 64, "DB") == [other.address]
    assert networks.addresses_of("a" * 64, "db.n1") == [other.address]
    assert networks.addresses_of("a" * 64, "alias") == [one.address, other.address]
    assert networks.addresses_of("a" * 64, "far") is None
    assert networks.addresses_of("b" * 64, "far") == [far.address]
    assert networks.name_of("a" * 64, other.address) == "db.n1"
    assert networks.name_of("a" * 64, far.address) is None


def test_the_default_network_has_no_names(networks: Networks) -> None:
    networks.attach("a" * 64, Attachment("bridge", ("web",)))
    assert networks.addresses_of("a" * 64, "web") is None


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1mbit", 10**6),
        ("1.5Mbit", 1_500_000),
        ("500kbit", 500_000),
        ("1000", 1000),
        ("1kbps", 8000),
        ("1gibit", 1 << 30),
    ],
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-1mbit", "0bit", "0.0001bit", "1e9", "9999999tbit", "1 mbit"])
def test_rates_that_make_no_sense(text: str) -> None:
    with pytest.raises(Invalid, match="invalid rate"):
        parse_rate(text)


def test_a_disk_that_is_full_is_said_and_changes_nothing(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "full.db"), "CREATE TABLE texts (text TEXT);", 1, NetworkFailure, "X")
    with database.writing() as connection:
        connection.execute("INSERT INTO texts VALUES ('kept')")
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    database.rows(f"PRAGMA max_page_count = {pages}")  # SQLite's error is the same as for a disk
    with (
        pytest.raises(NetworkFailure, match="there is no room left on the disk of"),
        database.writing() as connection,
    ):
        connection.execute("INSERT INTO texts VALUES (?)", ("x" * 100_000,))
    assert database.rows("SELECT text FROM texts") == [("kept",)]
    with database.writing() as connection:
        connection.execute("INSERT INTO texts VALUES ('small')")
    assert database.rows("SELECT text FROM texts") == [("kept",), ("small",)]
    database.close()
