//! TLS as Python configures it and sees it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use httpy::{
    config::{CertificateFiles, ClientAuth, TicketSecret, Tls as Settings, TlsVersion},
    listen,
    message::TlsSession,
};
use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyString},
};

use crate::errors;

/// The server's certificates and keys, and whom it trusts.
///
/// `config` has values by the names of `tls_defaults()`; what is not named keeps its default.
///
/// Raises `ConfigError` if a value is wrong, or something is wrong with a file.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Credentials(pub(crate) Arc<listen::Credentials>);

#[pymethods]
impl Credentials {
    #[new]
    #[pyo3(signature = (config, /))]
    fn new(py: Python<'_>, config: &Bound<'_, PyDict>) -> PyResult<Self> {
        let settings = read_settings(py, config)?;
        let loaded = py.detach(|| listen::Credentials::load(settings));
        Ok(Self(Arc::new(loaded.map_err(|error| errors::from_core(py, &error))?)))
    }

    /// Reads the files again. New connections get what is in them; nothing becomes of the others.
    ///
    /// Raises `ConfigError` if something is wrong with a file. Everything stays as it was then.
    fn reload(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.reload()).map_err(|error| errors::from_core(py, &error))
    }
}

/// One path, or several.
#[derive(FromPyObject)]
enum Paths {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

impl From<Paths> for Vec<PathBuf> {
    fn from(paths: Paths) -> Self {
        match paths {
            Paths::One(path) => vec![path],
            Paths::Several(paths) => paths,
        }
    }
}

fn read_settings(py: Python<'_>, values: &Bound<'_, PyDict>) -> PyResult<Settings> {
    let mut settings = Settings::default();
    let (mut chains, mut keys) = (Vec::new(), Vec::new());
    for (name, value) in values.iter() {
        let name = name.cast::<PyString>()?.to_cow()?;
        let wrong = |expected: &str| {
            let found = value.repr().map(|text| text.to_string()).unwrap_or_default();
            errors::config(py, format!("{name} is {expected}, not {found}"))
        };
        if value.is_none() {
            continue;
        }
        let paths = || value.extract::<Paths>().map(Vec::from).map_err(|_| wrong("a path or a list of paths"));
        let word = || value.extract::<String>();
        match &*name {
            "certfile" => chains = paths()?,
            "keyfile" => keys = paths()?,
            "client_ca" => settings.client_ca = Some(value.extract().map_err(|_| wrong("a path"))?),
            "client_auth" => {
                settings.client_auth = match word().as_deref() {
                    Ok("required") => ClientAuth::Required,
                    Ok("optional") => ClientAuth::Optional,
                    _ => return Err(wrong("\"required\" or \"optional\"")),
                }
            }
            "tls_min_version" => {
                settings.min_version = match word().as_deref() {
                    Ok("1.2") => TlsVersion::V1_2,
                    Ok("1.3") => TlsVersion::V1_3,
                    _ => return Err(wrong("\"1.2\" or \"1.3\"")),
                }
            }
            "ciphers" => settings.ciphers = value.extract().map_err(|_| wrong("a list of names"))?,
            "tls_reload_interval" => {
                let seconds = value.extract::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                settings.reload_interval = seconds.ok_or_else(|| wrong("a number of seconds that is not negative"))?;
            }
            // Not to be repeated in a message.
            "ticket_secret" => settings.ticket_secret = Some(read_secret(&word()?)?),
            _ => return Err(errors::config(py, format!("no configuration value {name:?}"))),
        }
    }
    settings.certificates = pair(py, chains, keys)?;
    Ok(settings)
}

fn pair(py: Python<'_>, chains: Vec<PathBuf>, keys: Vec<PathBuf>) -> PyResult<Vec<CertificateFiles>> {
    if chains.is_empty() {
        return Err(errors::config(py, "TLS needs a certificate (certfile)"));
    }
    if !keys.is_empty() && keys.len() != chains.len() {
        let message = format!(
            "there are {} of certfile and {} of keyfile: each certificate has a key of its own, in a keyfile, or all have \
             theirs in the certfile",
            chains.len(),
            keys.len()
        );
        return Err(errors::config(py, message));
    }
    let mut keys = keys.into_iter();
    Ok(chains.into_iter().map(|chain| CertificateFiles { chain, key: keys.next() }).collect())
}

/// How TLS is configured by default. None: nothing is.
#[pyfunction]
pub(crate) fn tls_defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let settings = Settings::default();
    let values = PyDict::new(py);
    for name in ["certfile", "keyfile", "client_ca"] {
        values.set_item(name, py.None())?;
    }
    let client_auth = match settings.client_auth {
        ClientAuth::Required => "required",
        ClientAuth::Optional => "optional",
    };
    values.set_item("client_auth", client_auth)?;
    let min_version = match settings.min_version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    };
    values.set_item("tls_min_version", min_version)?;
    values.set_item("ciphers", settings.ciphers)?;
    values.set_item("tls_reload_interval", settings.reload_interval.as_secs_f64())?;
    Ok(values)
}

/// Returns what session tickets are made with, for several processes to make them alike.
///
/// A new secret, or what has become of an older one.
#[pyfunction]
#[pyo3(signature = (older=None, /))]
pub(crate) fn ticket_secret(py: Python<'_>, older: Option<&str>) -> PyResult<String> {
    let secret = match older {
        Some(older) => read_secret(older)?.present(),
        None => TicketSecret::random(),
    };
    let secret = secret.map_err(|error| errors::from_core(py, &error))?;
    let digits: String = secret.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}:{digits}", secret.period))
}

fn read_secret(text: &str) -> PyResult<TicketSecret> {
    let read = || {
        let (period, digits) = text.split_once(':')?;
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() || !digits.is_ascii() {
            return None;
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
        }
        Some(TicketSecret { period: period.parse().ok()?, bytes })
    };
    read().ok_or_else(|| PyValueError::new_err("no secret for session tickets"))
}

/// Returns the files of a certificate for this machine alone, and of its key, made in `folder` if there is none.
///
/// Raises `ConfigError` if they can't be kept there.
#[pyfunction]
#[pyo3(signature = (folder, /))]
pub(crate) fn dev_certificate(py: Python<'_>, folder: PathBuf) -> PyResult<(PathBuf, Option<PathBuf>)> {
    let files = py.detach(|| listen::dev_certificate(&folder)).map_err(|error| errors::from_core(py, &error))?;
    Ok((files.chain, files.key))
}

/// What both sides of a TLS connection agreed on, and who the client is.
#[pyclass(frozen, name = "TLSSession", module = "httpy")]
pub(crate) struct PyTlsSession(pub(crate) Arc<TlsSession>);

#[pymethods]
impl PyTlsSession {
    /// The version: "TLSv1.2" or "TLSv1.3".
    #[getter]
    fn version(&self) -> &'static str {
        self.0.version
    }

    /// The cipher suite, by its name with IANA.
    #[getter]
    fn cipher(&self) -> &'static str {
        self.0.cipher
    }

    /// The host name that the client asked for (SNI), in lower case; None if it asked for none.
    #[getter]
    fn server_name(&self) -> Option<&str> {
        self.0.server_name.as_deref()
    }

    /// The protocol that both agreed on (ALPN), such as "http/1.1"; None if the client asked for none.
    #[getter]
    fn alpn(&self) -> Option<&str> {
        self.0.alpn.as_deref().and_then(|id| std::str::from_utf8(id).ok())
    }

    /// Whether the client resumed an earlier session.
    #[getter]
    fn is_resumed(&self) -> bool {
        self.0.is_resumed
    }

    /// The client's certificate, which was checked (`client_ca`); None without one.
    #[getter]
    fn peer_certificate(&self) -> PyResult<Option<Certificate>> {
        self.0.peer_certificate.as_deref().map(Certificate::read).transpose()
    }

    fn __repr__(&self) -> String {
        format!("<TLSSession {} {}>", self.0.version, self.0.cipher)
    }
}

/// A certificate (X.509).
#[pyclass(frozen, module = "httpy")]
pub(crate) struct Certificate {
    der: Vec<u8>,
    certificate: listen::Certificate,
}

impl Certificate {
    fn read(der: &[u8]) -> PyResult<Self> {
        let certificate = listen::Certificate::read(der).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self { der: der.to_vec(), certificate })
    }
}

#[pymethods]
impl Certificate {
    /// The certificate itself, in DER.
    #[getter]
    fn der<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.der)
    }

    /// Whose it is, as RFC 4514 writes it, such as "CN=client,O=Example".
    #[getter]
    fn subject(&self) -> &str {
        &self.certificate.subject
    }

    /// Who says so, written likewise.
    #[getter]
    fn issuer(&self) -> &str {
        &self.certificate.issuer
    }

    /// The common name of the subject; None if it has none.
    #[getter]
    fn common_name(&self) -> Option<&str> {
        self.certificate.common_name.as_deref()
    }

    /// The subject's other names: pairs of a kind, "DNS", "IP", "URI" or "email", and a name.
    #[getter]
    fn names(&self) -> Vec<(&'static str, &str)> {
        self.certificate.names.iter().map(|(kind, name)| (*kind, name.as_str())).collect()
    }

    /// The number that the issuer gave it, in hexadecimal digits.
    #[getter]
    fn serial_number(&self) -> &str {
        &self.certificate.serial_number
    }

    /// From when on it is valid, a `datetime` in UTC.
    #[getter]
    fn not_before<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        datetime(py, self.certificate.not_before)
    }

    /// Until when it is valid, a `datetime` in UTC.
    #[getter]
    fn not_after<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        datetime(py, self.certificate.not_after)
    }

    /// The SHA-256 of `der`, in hexadecimal digits.
    #[getter]
    fn fingerprint(&self) -> String {
        listen::Certificate::fingerprint(&self.der)
    }

    fn __repr__(&self) -> String {
        format!("<Certificate {}>", self.certificate.subject)
    }
}

/// A time in seconds since 1970. By adding: `fromtimestamp` takes no negative ones on some systems.
fn datetime(py: Python<'_>, seconds: i64) -> PyResult<Bound<'_, PyAny>> {
    static START: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let (start, timedelta) = START.get_or_try_init(py, || -> PyResult<_> {
        let module = py.import("datetime")?;
        let utc = module.getattr("timezone")?.getattr("utc")?;
        let start = module.getattr("datetime")?.call1((1970, 1, 1, 0, 0, 0, 0, utc))?;
        Ok((start.unbind(), module.getattr("timedelta")?.unbind()))
    })?;
    start.bind(py).add(timedelta.bind(py).call1((0, seconds))?)
}
