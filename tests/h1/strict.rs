//! What is refused: a test for each row of the table in `src/proto/strict.rs`, with the bytes that are sent and those that
//! come back. Limits are in `limits.rs`.

use httpy::Request;
use tokio::{io::AsyncWriteExt, task::yield_now};

use crate::support::{Served, describe, run, serve};

/// Sends each request, followed by another one, and expects this answer, and after it the end of the connection. Then the
/// same byte by byte. No request may reach a handler.
#[track_caller]
fn refused(status: &str, says: &str, requests: &[&str]) {
    refused_by(|request: Request| panic!("reached by {request:?}"), status, says, requests);
}

/// The same for requests with content that is refused: a handler waits for it.
#[track_caller]
fn content_refused(status: &str, says: &str, contents: &[&str]) {
    let head = "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let requests: Vec<String> = contents.iter().map(|content| format!("{head}{content}")).collect();
    refused_by(describe, status, says, &requests.iter().map(String::as_str).collect::<Vec<_>>());
}

#[track_caller]
fn refused_by(
    handler: impl Fn(Request) -> httpy::Reply + Send + Sync + 'static,
    status: &str,
    says: &str,
    requests: &[&str],
) {
    run(async || {
        let served = serve(handler);
        let length = says.len();
        let expected = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{says}"
        );
        for request in requests {
            let bytes = bytes(&format!("{request}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"));

            assert_eq!(served.exchange(&bytes).await, expected, "{request:?}");
            assert_eq!(exchange_one_by_one(&served, &bytes).await, expected, "{request:?}, byte by byte");
        }
    });
}

/// `\u{80}` to `\u{ff}` stand for single bytes.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).expect("one byte")).collect()
}

async fn exchange_one_by_one(served: &Served, bytes: &[u8]) -> String {
    let mut client = served.connect();
    for byte in bytes {
        // The server may have closed.
        if client.io.write_all(&[*byte]).await.is_err() {
            break;
        }
        yield_now().await;
    }
    client.rest().await
}

/// Sends each request and expects that a handler sees this method, target, host and content.
#[track_caller]
fn accepted(expected: &str, requests: &[&str]) {
    run(async || {
        let served = serve(describe);
        for request in requests {
            let bytes = bytes(request);

            let mut client = served.connect();
            client.send(&bytes).await;
            let answer = client.answer().await;
            assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 OK\r\n"), "{request:?}: {answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{request:?}: {answer}");
        }
    });
}

/// RFC 9112 §3: method, SP, request-target, SP, HTTP-version.
#[test]
fn a_request_line_has_three_parts_one_space_apart() {
    refused(
        "400 Bad Request",
        "the request line is not a method, a target and a version, one space apart (RFC 9112 section 3)",
        &[
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\t\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / \r\nHost: a\r\n\r\n",
            "GET\r\nHost: a\r\n\r\n",
            // HTTP/0.9
            "GET /\r\n",
        ],
    );
}

/// RFC 9110 §9.1, §5.6.2.
#[test]
fn a_method_is_a_token() {
    refused(
        "400 Bad Request",
        "the method is not a token (RFC 9110 section 9.1)",
        &[
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET:/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "\"GET\" / HTTP/1.1\r\nHost: a\r\n\r\n",
            "G\u{c9}T / HTTP/1.1\r\nHost: a\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\tGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "/ HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
}

/// RFC 9112 §2.3: the name in capitals, a digit, a dot, a digit.
#[test]
fn a_version_has_its_form() {
    refused(
        "400 Bad Request",
        "the version is malformed (RFC 9112 section 2.3)",
        &[
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTp/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.\r\nHost: a\r\n\r\n",
            "GET / HTTP/11\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
            "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1,1\r\nHost: a\r\n\r\n",
            "GET / HTTP1.1\r\nHost: a\r\n\r\n",
            "GET / HTP/1.1\r\nHost: a\r\n\r\n",
            "GET / ICY/1.1\r\nHost: a\r\n\r\n",
            "GET / x\r\nHost: a\r\n\r\n",
        ],
    );
}

/// RFC 9113 §3.4: a preface that is none is a reason to close. Who speaks something else could not read an answer. Behind a
/// request it is a client of HTTP that is refused.
#[test]
fn what_is_no_http_at_all_is_closed_without_an_answer() {
    const FOREIGN: &str = "INVALID CONNECTION PREFACE\r\n\r\n";
    let says = "neither the request target nor the version is one of HTTP (RFC 9112 section 3)";
    run(async || {
        let served = serve(describe);

        assert_eq!(served.exchange(FOREIGN).await, "");
        assert_eq!(exchange_one_by_one(&served, FOREIGN.as_bytes()).await, "");
        let answers = served.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{FOREIGN}")).await;
        assert!(answers.starts_with("HTTP/1.1 200 OK\r\n") && answers.ends_with(says), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 400 Bad Request").count(), 1);
    });
}

/// RFC 9110 §15.6.6.
#[test]
fn another_major_version_is_505() {
    refused(
        "505 HTTP Version Not Supported",
        "the versions here are 1.1 and 1.0 (RFC 9110 section 15.6.6)",
        &[
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
            "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
            // RFC 9113 §3.4: not what HTTP/2 begins with.
            "PRI * HTTP/2.0\r\nHost: a\r\n\r\n",
        ],
    );
}

/// RFC 9110 §2.5: processed as the highest minor version that is known.
#[test]
fn a_later_minor_version_is_taken_for_1_1() {
    accepted(
        "GET / host=a content=",
        &[
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.9\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.2\r\nHost: a\r\n\r\n",
        ],
    );
}

/// RFC 9112 §3.2, RFC 3986 §3.3 and §3.4.
#[test]
fn a_target_holds_no_illegal_character() {
    refused(
        "400 Bad Request",
        "the request target holds a character that has to be encoded (RFC 3986 section 3)",
        &[
            "GET /\" HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /<b> HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /{a} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /` HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{c3}\u{a9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?\" HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?<> HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET \u{80} HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
}

/// WHATWG URL, the percent-encode sets: what browsers send as it is.
#[test]
fn a_target_may_hold_what_browsers_do_not_encode() {
    accepted("GET /a[1]|^?b[]={c|d}`\\^~ host=a content=", &["GET /a[1]|^?b[]={c|d}`\\^~ HTTP/1.1\r\nHost: a\r\n\r\n"]);
}

/// RFC 9112 §3.2: none of the forms has one.
#[test]
fn a_target_has_no_fragment() {
    refused(
        "400 Bad Request",
        "the request target has a fragment (RFC 9112 section 3.2)",
        &[
            "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?a# HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET # HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
}

/// RFC 3986 §2.1.
#[test]
fn percent_encoding_is_well_formed() {
    refused(
        "400 Bad Request",
        "the request target's percent-encoding is malformed (RFC 3986 section 2.1)",
        &[
            "GET /% HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%2 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%2g HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%u0041 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%%41 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?a=100% HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?a=%G0 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a%4/ HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    accepted("GET /%41%2f?%7e host=a content=", &["GET /%41%2f?%7e HTTP/1.1\r\nHost: a\r\n\r\n"]);
}

/// RFC 9112 §3.2.1 to §3.2.4; RFC 9110 §4.2.1, §4.2.4.
#[test]
fn a_target_has_the_form_that_its_method_takes() {
    refused(
        "400 Bad Request",
        "the request target has no form this method takes (RFC 9112 section 3.2)",
        &[
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "OPTIONS a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "GET ?a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://?a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://user:secret@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a:65536/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a%41/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT http://a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    accepted("OPTIONS * host=a content=", &["OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"]);
    accepted("GET http://b:80/?x host=b:80 content=", &["GET http://b:80/?x HTTP/1.1\r\nHost: a\r\n\r\n"]);
    accepted("GET http://[::1]/ host=[::1] content=", &["GET http://[::1]/ HTTP/1.1\r\nHost: a\r\n\r\n"]);
}

/// RFC 9110 §9.3.6.
#[test]
fn connect_is_501() {
    refused(
        "501 Not Implemented",
        "CONNECT is for proxies (RFC 9110 section 9.3.6)",
        &["CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "CONNECT [::1]:443 HTTP/1.1\r\nHost: a\r\n\r\n"],
    );
}

/// RFC 9112 §2.2.
#[test]
fn a_line_does_not_end_in_lf_alone() {
    let says = "a line ends in LF without CR (RFC 9112 section 2.2)";
    refused(
        "400 Bad Request",
        says,
        &[
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nX: 1\nY: 2\r\nHost: a\r\n\r\n",
        ],
    );
    content_refused(
        "400 Bad Request",
        says,
        &[
            "1\nx\r\n0\r\n\r\n",
            "1;a\nx\r\n0\r\n\r\n",
            "1;a=b\nx\r\n0\r\n\r\n",
            "1;a=\"\n\"\r\nx\r\n0\r\n\r\n",
            "0\n\n",
            "0\r\n\n",
            "0\r\nA: b\n\r\n",
        ],
    );
}

/// RFC 9112 §2.2.
#[test]
fn a_line_holds_no_cr_alone() {
    let says = "a line holds CR without LF (RFC 9112 section 2.2)";
    refused(
        "400 Bad Request",
        says,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            "GET /\ra HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHo\rst: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\rX",
            "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    content_refused("400 Bad Request", says, &["1\rx\r\n", "1;a\rx\r\n", "0\r\n\rX", "0\r\nA: \rb\r\n\r\n"]);
}

/// RFC 9110 §5.5: "invalid and dangerous".
#[test]
fn a_line_holds_no_control_character() {
    let says = "a line holds a control character (RFC 9110 section 5.5)";
    refused(
        "400 Bad Request",
        says,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\u{1}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{1b}[0m\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \u{b}1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{c}chunked\r\n\r\n",
            "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\0/ HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
    content_refused("400 Bad Request", says, &["0\r\nA: \0\r\n\r\n", "0\r\nA: b\u{7f}\r\n\r\n"]);
}

/// RFC 9110 §5.5: TAB is white space, and bytes above ASCII are opaque.
#[test]
fn a_field_may_hold_tabs_and_bytes_above_ascii() {
    accepted("GET / host=a content=", &["GET / HTTP/1.1\r\nHost: a\r\nX:\t\ta\tb\u{80}\u{ff}\t\r\nY:\r\nZ:;\r\n\r\n"]);
}

/// RFC 9112 §2.2.
#[test]
fn no_white_space_stands_before_the_first_field() {
    refused(
        "400 Bad Request",
        "white space before the first field (RFC 9112 section 2.2)",
        &[
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
        ],
    );
}

/// RFC 9112 §5.2.
#[test]
fn a_field_line_is_not_folded() {
    refused(
        "400 Bad Request",
        "a field line is folded (RFC 9112 section 5.2)",
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n Content-Length: 5\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n Transfer-Encoding: chunked\r\n\r\n",
        ],
    );
    content_refused("400 Bad Request", "a field line is folded (RFC 9112 section 5.2)", &["0\r\nA: b\r\n c\r\n\r\n"]);
}

/// RFC 9112 §5.1.
#[test]
fn no_white_space_stands_before_a_colon() {
    refused(
        "400 Bad Request",
        "white space between a field's name and its colon (RFC 9112 section 5.1)",
        &[
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        ],
    );
}

/// RFC 9110 §5.1, §5.6.2.
#[test]
fn the_name_of_a_field_is_a_token() {
    let says = "a field's name is not a token with a colon behind it (RFC 9110 section 5.1)";
    refused(
        "400 Bad Request",
        says,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX(Y): 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\"X\": 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX/Y: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX;Y: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX=Y: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length\u{a0}: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nGET / HTTP/1.1\r\n\r\n",
        ],
    );
    content_refused("400 Bad Request", says, &["0\r\nA\r\n\r\n", "0\r\n: b\r\n\r\n", "0\r\nGET / HTTP/1.1\r\n\r\n"]);
}

/// RFC 9112 §3.2.
#[test]
fn a_request_has_a_host() {
    refused(
        "400 Bad Request",
        "the Host field is missing (RFC 9112 section 3.2)",
        &["GET / HTTP/1.1\r\n\r\n", "GET http://a/ HTTP/1.1\r\n\r\n", "GET / HTTP/1.2\r\nX-Host: a\r\n\r\n"],
    );
}

/// RFC 9112 §3.2.
#[test]
fn a_request_has_one_host() {
    refused(
        "400 Bad Request",
        "the Host field is repeated (RFC 9112 section 3.2)",
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHOST: b\r\n\r\n",
        ],
    );
}

/// RFC 9110 §4.2.1: an `http` URI has a host, and here are no others. RFC 9112 §3.2.
#[test]
fn a_host_is_not_empty() {
    refused(
        "400 Bad Request",
        "the Host field names no host, and http needs one (RFC 9110 section 4.2.1)",
        &[
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \t \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: :80\r\n\r\n",
            "GET / HTTP/1.0\r\nHost:\r\n\r\n",
        ],
    );
}

/// RFC 9110 §7.2, RFC 3986 §3.2.2 and §3.2.3.
#[test]
fn a_host_is_a_host_and_perhaps_a_port() {
    refused(
        "400 Bad Request",
        "the Host field is no host and port (RFC 9112 section 3.2)",
        &[
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a%41\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [a]\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1%25eth0]\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        ],
    );
    accepted("GET / host=a_b.c-d:65535 content=", &["GET / HTTP/1.1\r\nhOsT:a_b.c-d:65535 \t\r\n\r\n"]);
    accepted("GET / host=[2001:db8::1]:80 content=", &["GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n"]);
    accepted("GET / host= content=", &["GET / HTTP/1.0\r\n\r\n"]);
}

/// RFC 9112 §6.3.
#[test]
fn a_length_is_not_repeated() {
    refused(
        "400 Bad Request",
        "the Content-Length field is repeated (RFC 9112 section 6.3)",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n012345",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n01234",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\ncontent-length: 5\r\n\r\n01234",
        ],
    );
}

/// RFC 9110 §8.6.
#[test]
fn a_length_is_a_plain_number() {
    refused(
        "400 Bad Request",
        "the Content-Length field is no plain number (RFC 9110 section 8.6)",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  5\r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t5\r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: five\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \u{b2}\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        ],
    );
    accepted(
        "POST / host=a content=01234",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n01234",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:5\r\n\r\n01234",
        ],
    );
}

/// RFC 9112 §6.1.
#[test]
fn a_length_does_not_stand_beside_a_coding() {
    refused(
        "400 Bad Request",
        "there are both Content-Length and Transfer-Encoding (RFC 9112 section 6.1)",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n",
        ],
    );
}

/// RFC 9112 §6.1.
#[test]
fn http_1_0_has_no_codings() {
    refused(
        "400 Bad Request",
        "Transfer-Encoding is not for version 1.0 (RFC 9112 section 6.1)",
        &[
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n",
        ],
    );
}

/// RFC 9112 §6.1.
#[test]
fn a_coding_is_not_repeated() {
    refused(
        "400 Bad Request",
        "chunked or the Transfer-Encoding field is repeated (RFC 9112 section 6.1)",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,gzip,Chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        ],
    );
}

/// RFC 9112 §6.3, rule 4: where the content ends can't be told then.
#[test]
fn chunked_is_the_last_coding() {
    refused(
        "400 Bad Request",
        "chunked is not the last transfer coding (RFC 9112 section 6.3)",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked x\r\n\r\n0\r\n\r\n",
        ],
    );
}

/// RFC 9112 §6.1, RFC 9110 §5.5: stricter than they are.
#[test]
fn a_coding_is_not_padded() {
    refused(
        "400 Bad Request",
        "the Transfer-Encoding field is empty or padded (RFC 9112 section 6.1)",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked \r\n\r\n0\r\n\r\n",
        ],
    );
    accepted(
        "POST / host=a content=",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:CHUNKED\r\n\r\n0\r\n\r\n",
        ],
    );
}

/// RFC 9112 §6.1.
#[test]
fn another_coding_is_501() {
    refused(
        "501 Not Implemented",
        "the only transfer coding here is chunked (RFC 9112 section 6.1)",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x,chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
        ],
    );
}

/// RFC 9110 §10.1.1.
#[test]
fn another_expectation_is_417() {
    refused(
        "417 Expectation Failed",
        "the only expectation here is 100-continue (RFC 9110 section 10.1.1)",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nExpect:\r\nContent-Length: 1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, tea\r\nContent-Length: 1\r\n\r\nx",
        ],
    );
    accepted("POST / host= content=x", &["POST / HTTP/1.0\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx"]);
}

/// RFC 9112 §7.1: `1*HEXDIG`.
#[test]
fn a_chunk_size_is_a_plain_hexadecimal_number() {
    content_refused(
        "400 Bad Request",
        "a chunk's size is no plain hexadecimal number (RFC 9112 section 7.1)",
        &[
            "+1\r\nx\r\n0\r\n\r\n",
            "-1\r\nx\r\n0\r\n\r\n",
            "0x1\r\nx\r\n0\r\n\r\n",
            "\\x1\r\nx\r\n0\r\n\r\n",
            " 1\r\nx\r\n0\r\n\r\n",
            "1 \r\nx\r\n0\r\n\r\n",
            "1\t\r\nx\r\n0\r\n\r\n",
            "1 ;a\r\nx\r\n0\r\n\r\n",
            "1.0\r\nx\r\n0\r\n\r\n",
            "1_0\r\nx\r\n0\r\n\r\n",
            "1h\r\nx\r\n0\r\n\r\n",
            "x\r\n",
            "\r\n",
            "\n",
            ";a\r\n",
            "\u{ff}1\r\n",
            "8000000000000000\r\n",
            "ffffffffffffffff\r\n",
            "10000000000000000\r\n",
            "00000000000000001\r\nx\r\n0\r\n\r\n",
        ],
    );
    accepted(
        "POST / host=a content=0123456789",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n000000000000000A\r\n0123456789\r\n000\r\n\r\n",
        ],
    );
}

/// RFC 9112 §7.1.1.
#[test]
fn a_chunk_extension_has_a_name_and_perhaps_a_value() {
    content_refused(
        "400 Bad Request",
        "a chunk extension is malformed (RFC 9112 section 7.1.1)",
        &[
            "1;\r\nx\r\n0\r\n\r\n",
            "1; a\r\nx\r\n0\r\n\r\n",
            "1;a \r\nx\r\n0\r\n\r\n",
            "1;a =b\r\nx\r\n0\r\n\r\n",
            "1;=b\r\nx\r\n0\r\n\r\n",
            "1;a=\r\nx\r\n0\r\n\r\n",
            "1;a=b=c\r\nx\r\n0\r\n\r\n",
            "1;a=\"\r\nx\r\n0\r\n\r\n",
            "1;a=\"b\"c\r\nx\r\n0\r\n\r\n",
            "1;a=\"\0\"\r\nx\r\n0\r\n\r\n",
            "1;a=\"\\\0\"\r\nx\r\n0\r\n\r\n",
            "1;a;;b\r\nx\r\n0\r\n\r\n",
            "1;a\u{e9}\r\nx\r\n0\r\n\r\n",
            "1;a\0\r\nx\r\n0\r\n\r\n",
        ],
    );
    accepted(
        "POST / host=a content=xy",
        &["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             1;a;b=c;d=\"e\\\" \u{e9};\"\r\nx\r\n1\r\ny\r\n0;last\r\n\r\n"],
    );
}

/// RFC 9112 §7.1.1: "a recipient ought to limit the total length of chunk extensions".
#[test]
fn chunk_extensions_have_a_limit() {
    // With the `;` and the CR, 16,383 bytes.
    let longest = |more: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(16_382 + more));
    let many = |chunks: usize| format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(127)).repeat(chunks));
    let says = "the chunk extensions are too long (RFC 9112 section 7.1.1)";

    content_refused("400 Bad Request", says, &[&longest(1), &many(128)]);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    accepted("POST / host=a content=x", &[&format!("{head}{}", longest(0))]);
    let content = "x".repeat(127);
    accepted(&format!("POST / host=a content={content}"), &[&format!("{head}{}", many(127))]);
}

/// RFC 9112 §7.1.
#[test]
fn a_chunk_ends_where_its_size_says() {
    content_refused(
        "400 Bad Request",
        "a chunk does not end where its size says (RFC 9112 section 7.1)",
        &["1\r\nxx\r\n0\r\n\r\n", "2\r\nx\r\n0\r\n\r\n", "1\r\nx\n0\r\n\r\n", "1\r\nx\rx0\r\n\r\n", "1\r\nx0\r\n\r\n"],
    );
}

/// RFC 9110 §6.5.1.
#[test]
fn a_trailer_section_holds_no_fields_of_the_head() {
    let says = "the trailer section holds a field of the head (RFC 9110 section 6.5.1)";
    for name in [
        "Content-Length",
        "transfer-encoding",
        "Trailer",
        "TE",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Upgrade",
        "HOST",
        "Forwarded",
        "Via",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Proto",
        "X-Real-IP",
        "Max-Forwards",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Cache-Control",
        "Expect",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
        "Pragma",
        "Range",
        "Content-Encoding",
        "Content-Range",
        "Content-Type",
    ] {
        content_refused("400 Bad Request", says, &[&format!("1\r\nx\r\n0\r\nA: b\r\n{name}: 5\r\n\r\n")]);
    }
    accepted(
        "POST / host=a content=x",
        &[
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Host: b\r\nETag: \"c\"\r\n\r\n",
        ],
    );
}
