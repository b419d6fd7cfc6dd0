//! The `Date` field (RFC 9110 §6.6.1), written out once a second.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use http::HeaderValue;

/// The time, as the `Date` field of a response that is sent now.
pub(super) fn now() -> HeaderValue {
    thread_local! {
        static WRITTEN: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let second = since_epoch.as_secs().max(1);
    WRITTEN.with_borrow_mut(|(written, value)| {
        if *written != second {
            let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
            *value = HeaderValue::try_from(text).expect("a date has no control characters");
            *written = second;
        }
        value.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_date_of_this_second() {
        let written = now();

        let time = httpdate::parse_http_date(written.to_str().expect("ASCII")).expect("a date");
        assert!(SystemTime::now().duration_since(time).expect("the past") < Duration::from_secs(2));
    }
}
