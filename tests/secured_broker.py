"""The embedded broker with one more door: TLS, certificates on both sides, a user's name and password."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from deploy.local.broker import Broker, free_port

USER, PASSWORD = "aegis", "s3cret"

_PROPERTIES = """
listeners={plain},SASL_SSL://127.0.0.1:{port},CONTROLLER://{controller}
advertised.listeners={plain},SASL_SSL://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=\\
  org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
"""


class SecuredBroker(Broker):
    """Answers in plain text to the tests, and on ``secured_port`` to who shows certificate, name and password."""

    secured_port: int

    def _write_configuration(self) -> Path:
        properties = super()._write_configuration()
        written = dict(line.split("=", 1) for line in properties.read_text().splitlines())
        plain, controller = written["listeners"].split(",")
        self.secured_port = free_port()
        make_certificates(self.folder)
        with properties.open("a") as file:  # of two settings of a name, the later one counts
            file.write(
                _PROPERTIES.format(
                    plain=plain,
                    controller=controller.partition("//")[2],
                    port=self.secured_port,
                    folder=self.folder,
                    user=USER,
                    password=PASSWORD,
                )
            )
        return properties


def make_certificates(folder: Path) -> None:
    """An authority (ca.pem), and by it one certificate and key for the broker and for us (client.pem, key.pem)."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("authority", authority, authority, issuer="authority").public_bytes(Encoding.PEM)
    ours = _certificate("localhost", own, authority, issuer="authority").public_bytes(Encoding.PEM)
    key = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, content in {"ca": root, "client": ours, "key": key, "broker": key + ours}.items():
        (folder / f"{name}.pem").write_bytes(content)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, *, issuer: str
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address("127.0.0.1"))])
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(names, critical=False)
        .sign(signer, hashes.SHA256())
    )
