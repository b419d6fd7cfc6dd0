//! What a certificate says (X.509, RFC 5280), for people and applications. Whether it is to be believed is for rustls to say.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, GeneralName, X509Certificate, X509Name};

use crate::error::{Error, Kind};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is, as RFC 4514 writes it: `CN=client,O=Example`, the most particular first.
    pub subject: String,
    /// Who says so, likewise.
    pub issuer: String,
    /// The last common name of the subject.
    pub common_name: Option<String>,
    /// The number that the issuer gave it, in hexadecimal digits as OpenSSL writes them.
    pub serial_number: String,
    /// From when on it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
    /// The subject's other names (RFC 5280 §4.2.1.6): what a name is, `DNS`, `IP`, `URI` or `email`, and the name. Those of
    /// other kinds are left out.
    pub names: Vec<(&'static str, String)>,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(der: &[u8]) -> Result<Self, Error> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| Error::new(Kind::Peer, format!("not an X.509 certificate: {error}")))?;
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let names = alternative.map(|names| names.value.general_names.iter().filter_map(name_of).collect());
        let validity = certificate.validity();
        Ok(Self {
            subject: text_of(certificate.subject()),
            issuer: text_of(certificate.issuer()),
            common_name: certificate.subject().iter_common_name().last().and_then(value_of),
            serial_number: serial_number(certificate.raw_serial()),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            names: names.unwrap_or_default(),
        })
    }

    /// The SHA-256 of a certificate in DER, by which people tell certificates apart.
    pub fn fingerprint(der: &[u8]) -> String {
        hexadecimal(digest(&SHA256, der).as_ref())
    }

    /// The host names that it is for.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|(kind, _)| *kind == "DNS").map(|(_, name)| name)
    }
}

fn name_of(name: &GeneralName<'_>) -> Option<(&'static str, String)> {
    match name {
        GeneralName::DNSName(name) => Some(("DNS", (*name).to_owned())),
        GeneralName::URI(name) => Some(("URI", (*name).to_owned())),
        GeneralName::RFC822Name(name) => Some(("email", (*name).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let address = match bytes.len() {
                4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(*bytes).ok()?)),
                _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?)),
            };
            Some(("IP", address.to_string()))
        }
        _ => None,
    }
}

/// DER's content octets. A leading zero octet is for the sign.
fn serial_number(bytes: &[u8]) -> String {
    let digits = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    hexadecimal(digits).to_ascii_uppercase()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The names that RFC 4514 §3 gives to attributes, and OpenSSL's for the one that is seen most besides.
const ATTRIBUTES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// RFC 4514 §2: the last of the sequence comes first.
fn text_of(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for (number, set) in name.iter_rdn().collect::<Vec<_>>().into_iter().rev().enumerate() {
        for (place, attribute) in set.iter().enumerate() {
            match (number, place) {
                (0, 0) => {}
                (_, 0) => text.push(','),
                _ => text.push('+'),
            }
            write_attribute(&mut text, attribute);
        }
    }
    text
}

fn write_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let known = ATTRIBUTES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    text.push_str(known.unwrap_or(&oid));
    text.push('=');
    match value_of(attribute) {
        Some(value) => write_escaped(text, &value),
        // RFC 4514 §2.4, but for the tag and length, which no parser here keeps.
        None => {
            text.push('#');
            text.push_str(&hexadecimal(attribute.as_slice()));
        }
    }
}

/// The value of an attribute that is text.
fn value_of(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    if let Ok(text) = attribute.as_str() {
        return Some(text.to_owned());
    }
    let value = attribute.attr_value();
    let text = value.clone().bmpstring().map(|text| text.string());
    text.or_else(|_| value.clone().teletexstring().map(|text| text.string()))
        .or_else(|_| value.clone().universalstring().map(|text| text.string()))
        .ok()
}

/// RFC 4514 §2.4. Without it a value could be written that looks like further attributes.
fn write_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (place, character) in value.chars().enumerate() {
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => text.extend(['\\', character]),
            ' ' if place == 0 || place == last => text.push_str("\\ "),
            '#' if place == 0 => text.push_str("\\#"),
            // Nor must it play with a terminal or a log.
            character if character.is_control() => {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType, SerialNumber};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        change(&mut parameters);
        parameters.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn reads_who_it_is_for_and_until_when() {
        let der = certificate(|it| {
            it.distinguished_name.push(DnType::CountryName, "AT");
            it.distinguished_name.push(DnType::OrganizationName, "Example");
            it.distinguished_name.push(DnType::CommonName, "client");
            it.serial_number = Some(SerialNumber::from(vec![0x01, 0xab, 0xff]));
            it.not_before = rcgen::date_time_ymd(2020, 1, 1);
            it.not_after = rcgen::date_time_ymd(2021, 1, 1);
            it.subject_alt_names = vec![
                SanType::DnsName("a.example".try_into().expect("a name")),
                SanType::IpAddress("::1".parse().expect("an address")),
                SanType::IpAddress("192.0.2.1".parse().expect("an address")),
                SanType::URI("spiffe://example/a".try_into().expect("a URI")),
                SanType::Rfc822Name("a@example.org".try_into().expect("an address")),
            ];
        });

        let certificate = Certificate::read(&der).expect("a certificate");

        assert_eq!(
            certificate,
            Certificate {
                subject: "CN=client,O=Example,C=AT".to_owned(),
                issuer: "CN=client,O=Example,C=AT".to_owned(),
                common_name: Some("client".to_owned()),
                serial_number: "01ABFF".to_owned(),
                not_before: 1_577_836_800,
                not_after: 1_609_459_200,
                names: [
                    ("DNS", "a.example"),
                    ("IP", "::1"),
                    ("IP", "192.0.2.1"),
                    ("URI", "spiffe://example/a"),
                    ("email", "a@example.org"),
                ]
                .map(|(kind, name)| (kind, name.to_owned()))
                .into(),
            }
        );
        assert_eq!(certificate.hosts().collect::<Vec<_>>(), ["a.example"]);
    }

    #[test]
    fn a_value_can_t_look_like_further_attributes() {
        let der = certificate(|it| {
            it.distinguished_name.push(DnType::CommonName, " a,O=b+\"\\<>;#\u{1b}\u{7f}é ");
            it.distinguished_name.push(DnType::OrganizationName, "#1");
            it.distinguished_name
                .push(DnType::LocalityName, DnValue::BmpString("Wörgl".try_into().expect("representable")));
        });

        let certificate = Certificate::read(&der).expect("a certificate");

        assert_eq!(certificate.subject, r#"L=Wörgl,O=\#1,CN=\ a\,O\=b\+\"\\\<\>\;#\1B\7Fé\ "#);
        assert_eq!(certificate.common_name.as_deref(), Some(" a,O=b+\"\\<>;#\u{1b}\u{7f}é "));
    }

    #[test]
    fn writes_what_it_does_not_know_by_number() {
        let der = certificate(|it| {
            it.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 3]), "x");
        });

        assert_eq!(Certificate::read(&der).expect("a certificate").subject, "1.2.3=x");
    }

    #[test]
    fn refuses_what_is_no_certificate() {
        let der = certificate(|_| ());

        for wrong in [&b""[..], b"0", b"no certificate", &der[..der.len() - 1], &der[1..]] {
            assert!(Certificate::read(wrong).is_err());
        }
        for place in 0..der.len() {
            let mut changed = der.clone();
            changed[place] ^= 0x55;
            // Anything but a panic.
            let _ = Certificate::read(&changed);
        }
    }

    #[test]
    fn a_fingerprint_is_the_sha_256() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

        assert_eq!(Certificate::fingerprint(b"abc"), expected);
    }
}
