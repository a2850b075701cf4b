"""Which of a machine's addresses another one sees."""

import socket

import pytest

from pipeline.network import address_towards, interface_with


def test_an_own_address_is_reached_by_itself():
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert address_towards("127.0.1.1") == "127.0.0.1"
    assert interface_with("127.0.0.1") == "lo"


def test_the_way_out_has_an_interface():
    try:
        address = address_towards("198.51.100.1")  # TEST-NET-2: only the route is asked for
    except OSError:
        pytest.skip("this machine has no network")
    assert interface_with(address) in [name for _, name in socket.if_nameindex()]
    assert address != "127.0.0.1"


def test_nobody_has_that_address():
    assert interface_with("198.51.100.1") is None
