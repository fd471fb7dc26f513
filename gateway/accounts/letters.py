"""How a one-time link reaches who shall use it: by mail, or shown to the administrator who made it."""

from pydantic import SecretStr

from gateway.accounts.links import HOUR_MS, VALID_MS, Link, Purpose
from gateway.accounts.mail import Mail, Mailer

_SUBJECTS = {
    Purpose.INVITE: "You are invited to {place}",
    Purpose.RESET: "Choose another password",
    Purpose.FIRST_LOGIN: "Choose your password",
}
_TEXTS = {
    Purpose.INVITE: "You are invited to the organisation {place} on Tramontane. To come in, open",
    Purpose.RESET: "Somebody asked for another password for your Tramontane account. To choose one, open",
    Purpose.FIRST_LOGIN: "You have an account on Tramontane. To choose its password, open",
}


def deliver(link: Link, mailer: Mailer | None, public_url: str) -> SecretStr | None:
    """After the commit. The URL to show where there is no mail, or nobody to write to; None if it was mailed: then
    nobody but its reader sees it. Raises MailError.
    """
    url = link.url(public_url)
    if mailer is None or link.email is None:
        return url
    mailer.send(letter(link, link.email, url))
    return None


def letter(link: Link, to: str, url: SecretStr) -> Mail:
    hours = VALID_MS[link.purpose] // HOUR_MS
    lasts = "one hour" if hours == 1 else f"{hours} hours"
    text = (
        f"Hello,\n\n{_TEXTS[link.purpose].format(place=link.place)}\n\n{url.get_secret_value()}\n\n"
        f"The link works once, within {lasts}. If you did not expect this, leave it alone.\n"
    )
    return Mail(to, _SUBJECTS[link.purpose].format(place=link.place), text)
