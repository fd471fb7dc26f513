"""Mail, where SMTP is configured. Synchronous, for a thread; every step of a delivery is bounded in time."""

import smtplib
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from core.errors import SetupError
from gateway.accounts.settings import AccountSettings

TIMEOUT_S = 10.0
KEPT_MAX = 100
PORTS = {"smtps": 465, "smtp": 587, "smtp+plain": 25}


@dataclass(frozen=True, slots=True)
class Mail:
    to: str
    subject: str
    text: str = field(repr=False)  # may hold a link


class MailError(Exception):
    """It was not accepted; the same mail may be later."""


class Mailer(Protocol):
    def send(self, mail: Mail) -> None:
        """Raises MailError."""


@dataclass(frozen=True, slots=True)
class SmtpMailer:
    """`scheme`: smtps (TLS from the start), smtp (STARTTLS, or nothing is sent), smtp+plain (no TLS: for a relay on
    the same machine).
    """

    scheme: str
    host: str
    port: int
    sender: str
    user: str = ""
    password: SecretStr | None = None
    timeout_s: float = TIMEOUT_S

    def send(self, mail: Mail) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self.sender, mail.to, mail.subject
        message.set_content(mail.text)
        try:
            with self._connected() as server:
                if self.scheme == "smtp":
                    server.starttls(context=ssl.create_default_context())
                if self.password is not None:
                    server.login(self.user, self.password.get_secret_value())
                server.send_message(message)
        except (smtplib.SMTPException, OSError) as error:
            raise MailError(f"The mail server did not take it: {type(error).__name__}.") from error

    def _connected(self) -> smtplib.SMTP:
        if self.scheme == "smtps":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout_s, context=context)
        return smtplib.SMTP(self.host, self.port, timeout=self.timeout_s)


class KeptMails:
    """Sends nothing and keeps the last ones, for tests and trials."""

    def __init__(self) -> None:
        self._mails: deque[Mail] = deque(maxlen=KEPT_MAX)

    def send(self, mail: Mail) -> None:
        self._mails.append(mail)

    @property
    def mails(self) -> Sequence[Mail]:
        return tuple(self._mails)


def mailer_of(settings: AccountSettings) -> Mailer | None:
    """None: there is no mail here. Raises SetupError."""
    return None if settings.smtp_url is None else smtp_mailer(settings.smtp_url, settings.mail_from)


def smtp_mailer(url: SecretStr, sender: str) -> SmtpMailer:
    """Raises SetupError with one sentence that does not repeat the URL: it may hold a password."""
    try:
        parts = urlsplit(url.get_secret_value())
        port = parts.port or PORTS[parts.scheme]
    except (ValueError, KeyError) as error:
        raise SetupError("TRAMONTANE_SMTP_URL is not a URL such as smtp://user:password@host:587.") from error
    if not parts.hostname:
        raise SetupError("TRAMONTANE_SMTP_URL names no host.")
    if "@" not in sender or not sender.isprintable():
        raise SetupError("TRAMONTANE_MAIL_FROM is not an e-mail address.")
    password = None if parts.password is None else SecretStr(unquote(parts.password))
    return SmtpMailer(parts.scheme, parts.hostname, port, sender, unquote(parts.username or ""), password)
