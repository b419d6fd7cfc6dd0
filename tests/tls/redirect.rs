//! Requests that come without TLS to a server that has it.

use std::sync::Arc;

use httpy::{
    App,
    listen::{Tls, memory},
    middleware::HttpsRedirect,
};

use super::{Secure, secure, tell};
use crate::support::{Client, run};

#[test]
fn sends_what_came_without_tls_to_where_it_is_and_serves_the_rest() {
    run(async || {
        let Secure { authority, folder, credentials, .. } = secure(tell);
        let (plain, plain_listener) = memory();
        let (connector, listener) = memory();
        let encrypted = Tls::new(Box::new(listener), credentials.clone());
        let app = App::new(Arc::new(tell)).middleware(Arc::new(HttpsRedirect::new(8443)));
        let server = app.start(vec![Box::new(plain_listener), Box::new(encrypted)]);
        let served = Secure { authority, folder, credentials, connector, server };
        let mut client = Client::over(plain.connect().expect("a connection"));

        // Content that nobody wants is no obstacle to the next request.
        client.send("POST /a%20b?c=d HTTP/1.1\r\nHost: localhost:8000\r\nContent-Length: 4\r\n\r\nsome").await;
        let redirect = client.answer().await;
        let again = client.get().await;

        assert_eq!(
            redirect,
            "HTTP/1.1 308 Permanent Redirect\r\ncontent-type: text/plain; charset=utf-8\r\n\
             location: https://localhost:8443/a%20b?c=d\r\ncontent-length: 13\r\n\r\nuse https://\n"
        );
        assert!(again.contains("\r\nlocation: https://a:8443/\r\n"), "{again}");
        assert!(served.connect().await.get().await.contains("TLSv1.3"));
    });
}

#[test]
fn a_request_that_names_no_host_is_refused() {
    run(async || {
        let (plain, listener) = memory();
        let app = App::new(Arc::new(tell)).middleware(Arc::new(HttpsRedirect::new(443)));
        let _server = app.start(vec![Box::new(listener)]);
        let mut client = Client::over(plain.connect().expect("a connection"));

        client.send("GET / HTTP/1.0\r\n\r\n").await;

        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
        assert!(answer.ends_with("this server is reached by https://, and the request names no host\n"), "{answer}");
    });
}
