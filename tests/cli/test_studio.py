"""`studio` says what is missing before anything is loaded."""

import socket

import pytest

from spf_lora.cli import studio


def test_without_the_extra_it_says_what_to_install(cli, monkeypatch):
    monkeypatch.setattr(studio, "find_spec", lambda name: None)
    code, said, talk = cli("studio")
    assert (code, said) == (1, "")
    assert "needs gradio" in talk
    assert 'pip install "spf-lora[studio]"' in talk


def test_a_port_that_is_taken_is_told_with_another(cli, monkeypatch):
    monkeypatch.setattr(studio, "find_spec", lambda name: True)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, _, talk = cli("studio", "--port", port)
    assert code == 1
    assert f"port {port} is taken" in talk
    assert "--port" in talk


@pytest.mark.parametrize("value", ["always", "true", ""])
def test_nobody_else_is_ever_let_in(cli, value):
    code, _, talk = cli("studio", "--share", value)
    assert code == 2
    assert "never" in talk
