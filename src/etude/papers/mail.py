"""Mails a digest over SMTP: one message per recipient and day.

The configuration is in `papers.yaml` under `mail`, or in the environment, which takes precedence:

    host      ETUDE_MAIL_HOST       such as smtp.example.org
    port      ETUDE_MAIL_PORT       587 with starttls, 465 with tls, 25 with none, unless given
    security  ETUDE_MAIL_SECURITY   starttls (the default), tls, or none
    user      ETUDE_MAIL_USER       if the server requires one
    password  ETUDE_MAIL_PASSWORD   sent over an encrypted connection only
    from      ETUDE_MAIL_FROM       an address, or `Name <address>`
    to        ETUDE_MAIL_TO         addresses, separated by commas
    unsubscribe  ETUDE_MAIL_UNSUBSCRIBE  an https address that takes a POST (RFC 8058), or mailto:

The message of one day to one recipient always has the same Message-ID, and its acceptance is stored
in the library. An interrupted run resumes with the remaining recipients; if it stopped between the
server's acceptance and the record of it, mailboxes receive the same Message-ID twice.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import smtplib
import ssl
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import TYPE_CHECKING, Any, Protocol, cast

from etude.core.errors import PapersError
from etude.papers.words import shown

if TYPE_CHECKING:
    from etude.papers.library import Library

PORTS = {"starttls": 587, "tls": 465, "none": 25}
_KEYS = ("host", "port", "security", "user", "password", "from", "to", "unsubscribe")
_REMEMBERED = 400
"""Number of sent messages remembered per recipient."""
_LOCAL = {"localhost", "127.0.0.1", "::1"}


class Written(Protocol):
    """Interface of a message's content: a `Digest`."""

    @property
    def subject(self) -> str:
        """Return the subject line."""
        ...

    @property
    def content(self) -> Any:
        """Return the content, with its `day`."""
        ...

    def text(self) -> str:
        """Return the plain text."""
        ...

    def html(self) -> str:
        """As HTML."""
        ...


@dataclass(frozen=True, slots=True)
class MailSettings:
    """Recipients and server of mail; `read` validates them."""

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    security: str = "starttls"
    user: str = ""
    password: str = field(default="", repr=False)
    unsubscribe: str = ""
    timeout: float = 30.0
    """Timeout in seconds."""
    context: ssl.SSLContext | None = field(default=None, repr=False)
    """Trusted certificates; the system's if None."""

    @classmethod
    def read(
        cls, kept: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
    ) -> MailSettings:
        """Return the settings from a file's section, `Settings.mail`, and the environment.

        Raises:
            PapersError: a setting is missing, unknown or invalid.
        """
        variables = os.environ if environment is None else environment
        values = {str(key): value for key, value in (kept or {}).items()}
        for key in values:
            if key not in _KEYS:
                raise PapersError(f"mail: unknown setting {key!r}; use one of {', '.join(_KEYS)}")
        for key in _KEYS:
            value = variables.get(f"ETUDE_MAIL_{key.upper()}")
            if value:
                values[key] = value
        for key in ("host", "from", "to"):
            if not values.get(key):
                raise PapersError(
                    f"mail: {key!r} is missing; set ETUDE_MAIL_{key.upper()}, or {key} under "
                    "mail in papers.yaml"
                )
        security = str(values.get("security") or "starttls").lower()
        if security not in PORTS:
            raise PapersError(f"mail: security must be one of {', '.join(PORTS)}, not {security!r}")
        try:
            port = int(values.get("port") or PORTS[security])
        except (TypeError, ValueError):
            port = 0
        if not 0 < port < 65536:
            raise PapersError(f"mail: {values['port']!r} is not a port")
        to = values["to"]
        addresses = to.split(",") if isinstance(to, str) else to
        unsubscribe = str(values.get("unsubscribe") or "")
        if unsubscribe and not re.fullmatch(r"(https://|mailto:)[!-;=?-~]+", unsubscribe):
            raise PapersError("mail: unsubscribe must be an https: or mailto: address")
        if values.get("password") and not values.get("user"):
            raise PapersError("mail: a password is set, but no user")
        return cls(
            host=str(values["host"]).strip(),
            sender=str(_address(str(values["from"]))),
            to=tuple(dict.fromkeys(_address(str(one)).addr_spec for one in addresses)),
            port=port,
            security=security,
            user=str(values.get("user") or ""),
            password=str(values.get("password") or ""),
            unsubscribe=unsubscribe,
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """Result of sending: addresses that received it now, and those that had it already."""

    now: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


def message(digest: Written, settings: MailSettings, recipient: str) -> EmailMessage:
    """Return the message to one recipient, with plain text and HTML alternatives."""
    mail = EmailMessage(policy=SMTP)
    sender = _address(settings.sender)
    mail["From"] = sender
    mail["To"] = _address(recipient)
    mail["Subject"] = shown(digest.subject)
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = message_id(digest, settings, recipient)
    mail["Auto-Submitted"] = "auto-generated"
    mail["Precedence"] = "list"
    mail["List-ID"] = f"<papers.etude.{sender.domain}>"
    asked = settings.unsubscribe or f"mailto:{sender.addr_spec}?subject=unsubscribe"
    mail["List-Unsubscribe"] = f"<{asked}>"
    if asked.startswith("https:"):
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    # Quoted-printable: any line length and script passes any server.
    mail.set_content(digest.text(), charset="utf-8", cte="quoted-printable")
    mail.add_alternative(digest.html(), subtype="html", charset="utf-8", cte="quoted-printable")
    return mail


def message_id(digest: Written, settings: MailSettings, recipient: str) -> str:
    """Return a Message-ID that is stable per day, sender and recipient but reveals none."""
    sender = _address(settings.sender)
    told = "\n".join((digest.content.day.isoformat(), sender.addr_spec, recipient.lower()))
    name = hashlib.sha256(told.encode()).hexdigest()[:32]
    return f"<digest.{digest.content.day:%Y%m%d}.{name}@{sender.domain}>"


def send(
    digest: Written,
    settings: MailSettings,
    library: Library | None = None,
    *,
    resend: bool = False,
    show: Callable[[str], None] | None = None,
) -> Sent:
    """Send a digest to all recipients who have not received it.

    Args:
        digest: The digest of a day.
        settings: Server and addresses.
        library: Records deliveries; without it every recipient gets the message.
        resend: Whether to send to those who have received it, too.
        show: Called with a line for each message sent.

    Raises:
        PapersError: the server is unreachable, insecure or refuses; deliveries are recorded.
    """
    had = [] if resend else [one for one in settings.to if _got(library, digest, settings, one)]
    missing = [one for one in settings.to if one not in had]
    if not missing:
        return Sent((), tuple(had))
    done: list[str] = []
    refused: list[str] = []
    with _connected(settings) as server:
        for recipient in missing:
            try:
                server.send_message(
                    message(digest, settings, recipient),
                    _address(settings.sender).addr_spec,
                    [recipient],
                )
            except smtplib.SMTPRecipientsRefused as error:
                code, why = next(iter(error.recipients.values()))
                refused.append(f"{recipient} ({code} {_said(why)})")
                continue
            except smtplib.SMTPNotSupportedError as error:
                refused.append(f"{recipient} ({shown(str(error))})")
                continue
            _keep(library, digest, settings, recipient)
            done.append(recipient)
            if show is not None:
                show(f"sent to {recipient}")
    if refused:
        told = f"; {len(done)} others have received it" if done else ""
        raise PapersError(f"{settings.host} refused {', '.join(refused)}{told}")
    return Sent(tuple(done), tuple(had))


@contextmanager
def _connected(settings: MailSettings) -> Generator[smtplib.SMTP]:
    """Open a connection with the required security and log in; raise a PapersError on failure."""
    where = f"{settings.host}:{settings.port}"
    context = settings.context or ssl.create_default_context()
    if settings.user and settings.security == "none" and settings.host.lower() not in _LOCAL:
        raise PapersError(
            f"the password would be sent to {where} unencrypted; set security to starttls or tls"
        )
    try:
        if settings.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=settings.timeout, context=context
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout)
        with server:
            if settings.security == "starttls":
                server.ehlo()
                if not server.has_extn("starttls"):
                    raise PapersError(
                        f"{where} offers no STARTTLS, so mail would be sent unencrypted; "
                        "set security to tls, or to none to allow this"
                    )
                server.starttls(context=context)
            if settings.user:
                _log_in(server, settings)
            yield server
    except smtplib.SMTPAuthenticationError as error:
        raise PapersError(
            f"{where} rejected user {settings.user!r} with this password "
            f"({error.smtp_code} {_said(error.smtp_error)})"
        ) from error
    except smtplib.SMTPSenderRefused as error:
        raise PapersError(
            f"{where} refused the sender {error.sender} ({error.smtp_code} "
            f"{_said(error.smtp_error)})"
        ) from error
    except smtplib.SMTPResponseException as error:
        raise PapersError(
            f"{where} refused: {error.smtp_code} {_said(error.smtp_error)}"
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise PapersError(
            f"the certificate of {where} is not trusted: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise PapersError(
            f"no encrypted connection to {where}: {error.reason}; "
            "is security (starttls or tls) right for this port?"
        ) from error
    except (smtplib.SMTPException, OSError) as error:
        raise PapersError(f"{where}: {shown(str(error)) or type(error).__name__}") from error


def _log_in(server: smtplib.SMTP, settings: MailSettings) -> None:
    if (settings.user + settings.password).isascii():
        server.login(settings.user, settings.password)
        return
    # smtplib supports passwords in ASCII only; PLAIN allows UTF-8 (RFC 4616, section 2).
    server.ehlo_or_helo_if_needed()
    if "PLAIN" not in str(server.esmtp_features.get("auth", "")).upper().split():
        raise PapersError(
            f"{settings.host} does not support passwords beyond ASCII; choose another password"
        )
    told = f"\0{settings.user}\0{settings.password}".encode()
    code, said = server.docmd("AUTH", f"PLAIN {base64.b64encode(told).decode('ascii')}")
    if code != 235:
        raise smtplib.SMTPAuthenticationError(code, said)


def _said(answer: bytes | str) -> str:
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    return shown(text)[:200]


def _address(text: str) -> Address:
    """Return a validated address; raise PapersError if it is invalid."""
    name, bare = parseaddr(text)
    local, _, domain = bare.rpartition("@")
    lines = any(letter in text for letter in "\r\n\0")
    if lines or not local or not domain or " " in bare:
        raise PapersError(f"mail: {shown(text)[:80]!r} is not an e-mail address")
    try:
        if not domain.isascii():
            domain = domain.encode("idna").decode("ascii")
        return Address(shown(name), local, domain)
    except (ValueError, IndexError) as error:
        raise PapersError(f"mail: {shown(text)[:80]!r} is not an e-mail address") from error


def _mark(settings: MailSettings, recipient: str) -> str:
    told = f"{_address(settings.sender).addr_spec}\n{recipient.lower()}"
    return f"mail:{hashlib.sha256(told.encode()).hexdigest()[:40]}"


def _got(library: Library | None, digest: Written, settings: MailSettings, recipient: str) -> bool:
    if library is None:
        return False
    kept = library.mark(_mark(settings, recipient))
    return isinstance(kept, list) and message_id(digest, settings, recipient) in kept


def _keep(library: Library | None, digest: Written, settings: MailSettings, recipient: str) -> None:
    if library is None:
        return
    key, name = _mark(settings, recipient), message_id(digest, settings, recipient)
    kept = library.mark(key)
    before = cast("list[Any]", kept) if isinstance(kept, list) else []
    library.set_mark(key, [*(one for one in before if one != name), name][-_REMEMBERED:])
