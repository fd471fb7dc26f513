"""Mail: what an SMTP URL means, and what a server on loopback gets."""

import socket
import threading

import pytest
from pydantic import SecretStr

from core.errors import SetupError
from gateway.accounts.letters import deliver
from gateway.accounts.links import Link, Purpose
from gateway.accounts.mail import KeptMails, Mail, MailError, mailer_of, smtp_mailer
from gateway.accounts.settings import AccountSettings

TOKEN = "5ec2e7" * 10
LINK = Link("l1", SecretStr(TOKEN), Purpose.INVITE, "ada@example.com", 0, "Acme {x}")


class Server(threading.Thread):
    """Takes one mail and keeps what it was told. `greeting` None: accepts and stays silent."""

    def __init__(self, greeting=b"220 here"):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.greeting = greeting
        self.said = b""
        self.start()

    def run(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as lines:
            if self.greeting is None:
                lines.read()
                return
            connection.sendall(self.greeting + b"\r\n")
            body = False
            for line in lines:
                self.said += line
                if body:
                    body = line != b".\r\n"
                    answer = b"" if body else b"250 taken\r\n"
                else:
                    body = line.upper().startswith(b"DATA")
                    answer = {b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(line[:4].upper(), b"250 ok\r\n")
                connection.sendall(answer)

    def close(self):
        self.listener.close()
        self.join(10)


def mailer(port, scheme="smtp+plain"):
    return smtp_mailer(SecretStr(f"{scheme}://127.0.0.1:{port}"), "tramontane@example.com")


def test_a_server_gets_the_mail():
    server = Server()
    mailer(server.port).send(Mail("ada@example.com", "Hello", "Some text.\n"))
    server.close()
    assert b"TO:<ada@example.com>" in server.said
    assert b"Subject: Hello" in server.said
    assert b"Some text." in server.said


def test_without_tls_nothing_is_sent_where_tls_is_demanded():
    server = Server()
    with pytest.raises(MailError, match="SMTPNotSupportedError"):
        mailer(server.port, "smtp").send(Mail("ada@example.com", "Hello", "Some text.\n"))
    server.close()
    assert b"Some text." not in server.said


def test_a_refusal_silence_and_nobody_there_are_errors():
    server = Server(b"554 no")
    with pytest.raises(MailError, match="SMTPConnectError"):
        mailer(server.port).send(Mail("ada@example.com", "Hello", "Text"))
    server.close()
    with pytest.raises(MailError, match="ConnectionRefusedError"):
        mailer(server.port).send(Mail("ada@example.com", "Hello", "Text"))


def test_urls():
    full = smtp_mailer(SecretStr("smtps://me:p%40ss@mail.example.com"), "a@example.com")
    assert (full.scheme, full.host, full.port, full.user) == ("smtps", "mail.example.com", 465, "me")
    assert full.password.get_secret_value() == "p@ss"
    assert "p@ss" not in repr(full)
    assert smtp_mailer(SecretStr("smtp://mail.example.com:26"), "a@example.com").port == 26
    for url, sender in (("http://secret", "a@b"), ("smtp://", "a@b"), ("smtp://h:x", "a@b"), ("smtp://h", "")):
        with pytest.raises(SetupError) as refused:
            smtp_mailer(SecretStr(url), sender)
        assert "secret" not in str(refused.value)
    assert mailer_of(AccountSettings(smtp_url=None)) is None
    assert mailer_of(AccountSettings(smtp_url="smtp://h", mail_from="a@b")) is not None


def test_a_link_is_mailed_or_shown_never_both():
    kept = KeptMails()
    assert deliver(LINK, kept, "https://api.example.com/") is None
    (mail,) = kept.mails
    assert (mail.to, mail.subject) == ("ada@example.com", "You are invited to Acme {x}")
    assert f"https://api.example.com/console/links/{TOKEN}" in mail.text
    assert "72 hours" in mail.text
    shown = deliver(LINK, None, "https://api.example.com")
    assert shown.get_secret_value() == f"https://api.example.com/console/links/{TOKEN}"
    for thing in (LINK, mail, shown):
        assert TOKEN not in repr(thing)
