"""A digest by e-mail, through real SMTP servers on this machine, read back by the email package."""

from __future__ import annotations

import email
import email.policy
import re
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from hypothesis import given
from hypothesis import strategies as st

from etude.core.errors import PapersError
from etude.papers.digest import Digest
from etude.papers.digest.content import Content, Extra
from etude.papers.library import Library
from etude.papers.mail import MailSettings, message, message_id, send
from etude.store.engine import open_store

LONG = "слово 中文 é " * 400


def day(number=5, empty="Nothing was announced."):
    return Digest(Content(date(2024, 3, number), (), empty, topic=Extra("Été", LONG)))


@dataclass
class Box:
    """What a server took, and how it misbehaves."""

    taken: list = field(default_factory=list)
    refuses: set = field(default_factory=set)
    drops_after: int = 10_000

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802
        if address in self.refuses:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, _session, envelope):  # noqa: N802
        if len(self.taken) >= self.drops_after:
            server.transport.abort()
            return "250 too late"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.taken.append((envelope.mail_from, tuple(envelope.rcpt_tos), mail, envelope.content))
        return "250 OK"


def _authenticator(server, session, envelope, mechanism, data):
    right = (data.login, data.password) == (b"ada", "pässword".encode())
    return AuthResult(success=right, handled=False)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for localhost that nobody has signed but itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def _context(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.fixture
def serving():
    """A function that starts a server and returns its port."""
    running = []

    def start(box, *, security="none", folder=None, auth=False):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = _context(folder) if folder else None

        class Server(Controller):
            def factory(self):
                return SMTP(
                    self.handler,
                    hostname="localhost",
                    tls_context=context if security == "starttls" else None,
                    authenticator=_authenticator if auth else None,
                    auth_require_tls=False,
                    enable_SMTPUTF8=True,
                )

        controller = Server(
            box, "127.0.0.1", port, ssl_context=context if security == "tls" else None
        )
        controller.start()
        running.append(controller)
        return port

    yield start
    for controller in running:
        controller.stop()


@pytest.fixture
def library(address):
    return Library(open_store(address))


def settings(port, **changes):
    base = MailSettings(
        "localhost", "Étude <etude@example.org>", ("ada@example.org",), port, "none", timeout=20
    )
    return replace(base, **changes)


def test_a_message_arrives_whole_with_the_headers_that_lists_need(serving, library):
    box = Box()
    port = serving(box)
    sent = send(day(), settings(port, unsubscribe="https://example.org/u?t=1"), library)
    assert sent.now == ("ada@example.org",)
    ((sender, recipients, mail, raw),) = box.taken
    assert (sender, recipients) == ("etude@example.org", ("ada@example.org",))
    assert mail["Subject"] == "Papers of 5 March 2024: none new"
    assert mail["From"].addresses[0].display_name == "Étude"
    assert mail["To"].addresses[0].addr_spec == "ada@example.org"
    assert mail["List-Unsubscribe"] == "<https://example.org/u?t=1>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert datetime.now(UTC) - parsedate_to_datetime(mail["Date"]) < timedelta(hours=1)
    assert mail["MIME-Version"] == "1.0"
    assert mail.get_content_type() == "multipart/alternative"
    text, page = mail.iter_parts()
    assert (text.get_content_type(), page.get_content_type()) == ("text/plain", "text/html")
    assert text.get_content().replace("\r\n", "\n").strip() == day().text().strip()
    assert page.get_content().replace("\r\n", "\n").strip() == day().html().strip()
    assert not mail.defects
    # RFC 5322, 2.1.1, and nothing that an old server would have to change.
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert raw.isascii()


def test_without_an_address_the_sender_takes_unsubscriptions_by_mail(serving):
    box = Box()
    send(day(), settings(serving(box)))
    mail = box.taken[0][2]
    assert mail["List-Unsubscribe"] == "<mailto:etude@example.org?subject=unsubscribe>"
    assert mail["List-Unsubscribe-Post"] is None


def test_a_day_goes_to_each_recipient_once_however_often_it_is_sent(serving, library):
    box = Box()
    to = settings(serving(box), to=("ada@example.org", "bob@example.org"))
    assert send(day(), to, library).now == to.to
    again = send(day(), to, library)
    assert (again.now, again.before) == ((), to.to)
    assert len(box.taken) == 2
    # Each sees its own address alone.
    assert [taken[2]["To"].addresses[0].addr_spec for taken in box.taken] == list(to.to)
    assert send(day(6), to, library).now == to.to
    wider = replace(to, to=(*to.to, "cy@example.org"))
    assert send(day(), wider, library).now == ("cy@example.org",)
    asked = send(day(), to, library, resend=True)
    assert asked.now == to.to
    ids = [taken[2]["Message-ID"] for taken in box.taken]
    assert ids[0] == ids[-2]
    assert len(set(ids)) == 5


def test_a_dropped_connection_is_one_line_and_the_next_run_goes_on(serving, library):
    box = Box(drops_after=1)
    to = settings(serving(box), to=("ada@example.org", "bob@example.org", "cy@example.org"))
    with pytest.raises(PapersError, match=r"localhost:\d+: .*") as caught:
        send(day(), to, library)
    assert "\n" not in str(caught.value)
    box.drops_after = 10_000
    sent = send(day(), to, library)
    assert (sent.before, sent.now) == (
        ("ada@example.org",),
        ("bob@example.org", "cy@example.org"),
    )


def test_refused_recipients_are_named_and_the_others_get_theirs(serving, library):
    box = Box(refuses={"bob@example.org"})
    to = settings(serving(box), to=("bob@example.org", "ada@example.org"))
    with pytest.raises(PapersError) as caught:
        send(day(), to, library)
    assert str(caught.value) == (
        "localhost refused bob@example.org (550 5.1.1 no such mailbox); 1 others have received it"
    )
    assert [taken[1] for taken in box.taken] == [("ada@example.org",)]
    box.refuses.clear()
    assert send(day(), to, library).now == ("bob@example.org",)


def test_login_over_starttls_and_a_wrong_password_is_one_line(serving, certificate):
    box = Box()
    port = serving(box, security="starttls", folder=certificate, auth=True)
    trust = ssl.create_default_context(cafile=certificate / "cert.pem")
    right = settings(port, security="starttls", user="ada", password="pässword", context=trust)
    send(day(), right)
    assert len(box.taken) == 1
    with pytest.raises(PapersError, match="rejected user 'ada' with this password") as caught:
        send(day(), replace(right, password="wrong"))
    assert "wrong" not in str(caught.value)
    assert "wrong" not in repr(replace(right, password="wrong"))


def test_tls_from_the_first_byte(serving, certificate):
    box = Box()
    port = serving(box, security="tls", folder=certificate)
    trust = ssl.create_default_context(cafile=certificate / "cert.pem")
    send(day(), settings(port, security="tls", context=trust))
    assert len(box.taken) == 1
    with pytest.raises(PapersError, match=r"the certificate of .* is not trusted"):
        send(day(), settings(port, security="tls"))
    with pytest.raises(PapersError, match="is not trusted"):
        send(
            day(),
            settings(serving(box, security="starttls", folder=certificate), security="starttls"),
        )
    assert len(box.taken) == 1


def test_a_password_never_goes_in_the_clear(serving):
    box = Box()
    port = serving(box)
    with pytest.raises(PapersError, match="offers no STARTTLS"):
        send(day(), settings(port, security="starttls", user="ada", password="x"))
    elsewhere = settings(port, user="ada", password="x", host="smtp.example.org")
    with pytest.raises(PapersError, match="unencrypted"):
        send(day(), elsewhere)
    assert box.taken == []


@pytest.mark.parametrize("security", ["none", "tls"])
def test_a_server_that_is_not_there_or_says_nothing_is_one_line(security):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with pytest.raises(PapersError, match=rf"localhost:{port}: .*refused"):
            send(day(), settings(port, security=security))
        silent.listen(1)
        with pytest.raises(PapersError, match=rf"localhost:{port}: .*timed out"):
            send(day(), settings(port, security=security, timeout=0.3))


def test_a_server_of_nonsense_is_one_line():
    with socket.socket() as odd:
        odd.bind(("127.0.0.1", 0))
        odd.listen(1)

        def answer():
            connection, _ = odd.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PapersError) as caught:
            send(day(), settings(odd.getsockname()[1]))
        thread.join()
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_no_text_adds_a_header(text):
    @dataclass
    class Hostile:
        content: Content
        subject: str

        def text(self):
            return text

        html = text

    hostile = Hostile(day().content, f"x{text}\r\nBcc: evil@example.org")
    mail = message(hostile, settings(25), "ada@example.org")
    raw = mail.as_bytes()
    back = email.message_from_bytes(raw, policy=email.policy.default)
    assert back["Bcc"] is None
    assert set(back.keys()) == set(mail.keys())
    assert max(map(len, raw.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    "address",
    ["", "x", "a@b\r\nBcc: c@d", "a b@c.de", "@c.de", "a@", "a@b.c, d@e.f\n", "<a@b.c>\0"],
)
def test_what_is_no_address_is_one_line(address):
    with pytest.raises(PapersError, match=r"is not an e-mail address$"):
        message(day(), settings(25), address)


def test_a_message_id_is_the_days_and_the_recipients_own():
    to = settings(25)
    one = message_id(day(), to, "ada@example.org")
    assert re.fullmatch(r"<digest\.20240305\.[0-9a-f]{32}@example\.org>", one)
    assert one == message_id(day(empty="Another text."), to, "Ada@example.org")
    assert (
        len({one, message_id(day(6), to, "ada@example.org"), message_id(day(), to, "b@c.de")}) == 3
    )


# Settings

KEPT = {"host": "smtp.example.org", "from": "Etude <e@example.org>", "to": ["a@b.c", "d@e.f"]}


def test_settings_come_from_the_file_and_the_environment_goes_first():
    found = MailSettings.read(KEPT, {})
    assert (found.host, found.port, found.security) == ("smtp.example.org", 587, "starttls")
    assert found.to == ("a@b.c", "d@e.f")
    found = MailSettings.read(
        KEPT,
        {
            "ETUDE_MAIL_SECURITY": "tls",
            "ETUDE_MAIL_TO": "x@y.z, x@y.z",
            "ETUDE_MAIL_USER": "u",
            "ETUDE_MAIL_PASSWORD": "p",
        },
    )
    assert (found.port, found.to, found.user, found.password) == (465, ("x@y.z",), "u", "p")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"host": ""}, "mail: 'host' is missing; set ETUDE_MAIL_HOST, or host under mail"),
        ({"to": []}, "mail: 'to' is missing"),
        ({"hots": "x"}, "mail: unknown setting 'hots'"),
        ({"security": "ssl3"}, "mail: security must be one of starttls, tls, none, not 'ssl3'"),
        ({"port": "mail"}, "mail: 'mail' is not a port"),
        ({"port": 70000}, "mail: 70000 is not a port"),
        ({"from": "nobody"}, "mail: 'nobody' is not an e-mail address"),
        ({"unsubscribe": "http://x"}, "mail: unsubscribe must be an https: or mailto: address"),
        ({"unsubscribe": "https://x\r\nBcc: y"}, "mail: unsubscribe must be an https:"),
        ({"password": "x"}, "mail: a password is set, but no user"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changes, expected):
    with pytest.raises(PapersError) as caught:
        MailSettings.read({**KEPT, **changes}, {})
    assert str(caught.value).startswith(expected)
