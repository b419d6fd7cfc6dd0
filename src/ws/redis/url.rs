//! Where Redis is.

use std::fmt;

use percent_encoding::percent_decode_str;

/// Where Redis is, and how to be let in. Shown without the latter.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub(super) place: Place,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(String, u16),
    #[cfg(unix)]
    Unix(String),
}

impl RedisUrl {
    /// Reads `redis://[[user]:password@]host[:port][/database]` or `redis+unix://[[user]:password@]/path[?db=database]`.
    ///
    /// # Errors
    /// What is expected, without what was found: there may be a password in it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "a URL such as redis://host:6379/0 or redis+unix:///path";
        let (scheme, rest) = url.split_once("://").ok_or(EXPECTED)?;
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| EXPECTED);
        let (user, password) = match credentials.map(|both| both.split_once(':').unwrap_or((both, ""))) {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        let (place, database) = match scheme {
            "redis" => {
                let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
                (read_host(host).ok_or(EXPECTED)?, database)
            }
            #[cfg(unix)]
            "redis+unix" => {
                let (path, database) = rest.split_once("?db=").unwrap_or((rest, ""));
                if !path.starts_with('/') {
                    return Err(EXPECTED);
                }
                (Place::Unix(decode(path)?), database)
            }
            "rediss" => return Err("redis:// or redis+unix://: there is no TLS to Redis"),
            _ => return Err(EXPECTED),
        };
        let database = if database.is_empty() { 0 } else { database.parse().map_err(|_| EXPECTED)? };
        Ok(Self {
            place,
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            database,
        })
    }
}

fn read_host(written: &str) -> Option<Place> {
    let (host, port) = match written.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { "" } else { port.strip_prefix(':')? })
        }
        None => written.split_once(':').unwrap_or((written, "")),
    };
    let port = if port.is_empty() { 6379 } else { port.parse().ok()? };
    (!host.is_empty()).then(|| Place::Tcp(host.to_owned(), port))
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisUrl").field("place", &self.place).field("database", &self.database).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let parse = |url| RedisUrl::parse(url).unwrap();
        let tcp = |host: &str, port| Place::Tcp(host.to_owned(), port);

        assert_eq!(parse("redis://cache").place, tcp("cache", 6379));
        assert_eq!(parse("redis://[::1]:7000/").place, tcp("::1", 7000));
        let full = parse("redis://app:p%40ss@cache:7000/3");
        assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("app"), Some("p@ss")));
        assert_eq!((full.place, full.database), (tcp("cache", 7000), 3));
        let short = parse("redis://:secret@cache");
        assert_eq!((short.user, short.password.as_deref()), (None, Some("secret")));
    }

    #[cfg(unix)]
    #[test]
    fn so_are_those_of_sockets() {
        let url = RedisUrl::parse("redis+unix:///run/redis%20one.sock?db=2").unwrap();

        assert_eq!((url.place, url.database), (Place::Unix("/run/redis one.sock".to_owned()), 2));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_it() {
        for url in [
            "",
            "cache:6379",
            "http://cache",
            "redis://",
            "redis://:secret@",
            "redis://h:port",
            "redis://h/x",
            "redis+unix://x",
        ] {
            let says = RedisUrl::parse(url).unwrap_err();
            assert_eq!(says, "a URL such as redis://host:6379/0 or redis+unix:///path", "{url}");
        }
        assert_eq!(RedisUrl::parse("rediss://h").unwrap_err(), "redis:// or redis+unix://: there is no TLS to Redis");
        let shown = format!("{:?}", RedisUrl::parse("redis://app:secret@cache").unwrap());
        assert!(!shown.contains("secret") && shown.contains("cache"), "{shown}");
    }
}
