//! How long one lookup takes, in a table of some 200 routes: `cargo bench --bench route`.

use divan::{Bencher, black_box};
use http::Method;
use httpy::route::{Methods, Pattern, Table};

fn main() {
    divan::main();
}

fn table() -> Table<usize> {
    let mut table = Table::new();
    let mut add = |methods: Methods, pattern: &str| {
        table.add(methods, Pattern::parse(pattern).expect("a pattern"), 0).expect("no conflict");
    };
    for pattern in ["/", "/health", "/users/me", "/users/{id:int}", "/users/{name}", "/static/{rest:path}"] {
        add(Method::GET.into(), pattern);
    }
    add(Method::POST.into(), "/users/{id:int}/posts/{post:int}/comments/{comment:int}");
    for number in 0..50 {
        add(Method::GET.into(), &format!("/api/v1/resource{number}"));
        add(Method::POST.into(), &format!("/api/v1/resource{number}"));
        add(Method::GET.into(), &format!("/api/v1/resource{number}/{{id:uuid}}"));
        add(Method::GET.into(), &format!("/api/v1/resource{number}/{{id}}/parts/{{part}}"));
    }
    table
}

const LOOKUPS: &[&str] = &[
    "GET /",
    "GET /users/me",
    "GET /api/v1/resource25",
    "GET /users/123456",
    "GET /users/somebody",
    "GET /users/some%20body",
    "GET /api/v1/resource25/01234567-89ab-cdef-0123-456789abcdef",
    "GET /api/v1/resource25/7/parts/8",
    "POST /users/1/posts/2/comments/3",
    "GET /static/css/app.css",
    "GET /api/v1/resource25/7/",
    "PUT /users/me",
    "GET /no/such/path",
];

#[divan::bench(args = LOOKUPS, sample_size = 10_000)]
fn find(bencher: Bencher<'_, '_>, lookup: &str) {
    let table = table();
    let (method, path) = lookup.split_once(' ').expect("a method and a path");
    let method = Method::from_bytes(method.as_bytes()).expect("a method");

    bencher.bench_local(|| {
        black_box(table.find(black_box(&method), black_box(path)));
    });
}
