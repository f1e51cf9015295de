"""The network that the fault tests break does what they rely on."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from faulty_network import FaultyNetwork, faulty_network


@pytest.fixture
def network() -> Iterator[FaultyNetwork]:
    """A faulty network to a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:  # the test is over
                    return
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        with faulty_network("127.0.0.1", server.getsockname()[1]) as network:
            yield network
        server.shutdown(socket.SHUT_RDWR)


def connect(network: FaultyNetwork) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.port), timeout=20)


def echoed(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    got = b""
    while len(got) < len(data) and (part := client.recv(65536)):
        got += part
    return got


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_bytes_pass_unchanged(network):
    with connect(network) as client:
        data = bytes(range(256)) * 4000
        assert echoed(client, data) == data


def test_a_cut_network_breaks_connections_and_refuses_others_until_it_is_restored(network):
    with connect(network) as client:
        assert echoed(client, b"before") == b"before"
        network.cut()
        assert ended(client)
    with connect(network) as client:
        assert ended(client)
    network.restore()
    with connect(network) as client:
        assert echoed(client, b"after") == b"after"


def test_held_bytes_arrive_once_the_network_is_restored(network):
    with connect(network) as client:
        network.hold()
        client.sendall(b"held")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        network.restore()
        client.settimeout(20)
        assert client.recv(4) == b"held"


def test_delay_and_throttle_take_their_time(network):
    with connect(network) as client:
        network.delay_s = 0.1
        started = time.monotonic()
        echoed(client, b"x")
        assert time.monotonic() - started > 0.19  # there and back
        network.delay_s, network.bytes_per_s = 0.0, 10_000
        started = time.monotonic()
        echoed(client, b"x" * 1000)
        echoed(client, b"x")
        assert time.monotonic() - started > 0.09


def test_connections_lead_to_the_new_target(network):
    with socket.create_server(("127.0.0.1", 0)) as other:
        network.target = other.getsockname()
        with connect(network) as client, other.accept()[0] as far:
            far.sendall(b"other")
            assert client.recv(5) == b"other"
