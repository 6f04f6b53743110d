"""How this process shows itself to the brokers, and knows them: one place makes it for both libraries.

librdkafka's clients are made all over this package from the brokers' addresses. What they show is the process's own,
as its log's format is: ``secure`` is told once, by the composition root (docs/adr/0027-brokers-behind-tls.md).
"""

import ssl

from schemas.settings import Kafka

_shown: dict[str, str] = {}


def secure(settings: Kafka) -> None:
    """Let every client of this process that is made from now on use these settings."""
    _shown.clear()
    _shown.update(rdkafka_security(settings))


def shown() -> dict[str, str]:
    """What librdkafka's clients of this process are configured with."""
    return dict(_shown)


def rdkafka_security(settings: Kafka) -> dict[str, str]:
    """The settings by librdkafka's names; what is not set is not in it."""
    password = settings.sasl_password.get_secret_value() if settings.sasl_password else None
    named: dict[str, object] = {
        "security.protocol": settings.security_protocol,
        "ssl.ca.location": settings.ssl_ca_file,
        "ssl.certificate.location": settings.ssl_cert_file,
        "ssl.key.location": settings.ssl_key_file,
    }
    if settings.uses_sasl:
        named |= {
            "sasl.mechanism": settings.sasl_mechanism,
            "sasl.username": settings.sasl_username,
            "sasl.password": password,
        }
    return {name: str(value) for name, value in named.items() if value}


def tls_context(settings: Kafka) -> ssl.SSLContext | None:
    """The same for aiokafka; None without TLS.

    Raises:
        ValueError: A file is not there, or not what it should be.
    """
    if not settings.uses_tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file)
        if settings.ssl_cert_file:
            context.load_cert_chain(settings.ssl_cert_file, settings.ssl_key_file)
    except OSError as error:  # ssl.SSLError is one
        files = [str(file) for file in (settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file) if file]
        raise ValueError(
            f"no TLS with {', '.join(files)}: {error}; see AEGIS_KAFKA__SSL_CA_FILE and its like"
        ) from error
    return context
