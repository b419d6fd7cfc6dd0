//! Who may import whom. The compiler holds the border to Python; this file holds the layers inside the server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The table. A module may import the modules of its row, and itself.
///
/// ```text
/// 5 app
/// 4 server
/// 3 above: route middleware endpoint ws      3 below: listen, proto ──► conn
/// 2 handler
/// 1 message
/// 0 error config metrics platform
/// ```
///
/// What answers (above) and what carries (below) meet in `handler` and `message` only; and what answers does not lean on
/// its neighbours, so that any of it can be left out.
const TABLE: &[(&str, &[&str])] = &[
    ("error", GROUND),
    ("config", GROUND),
    ("metrics", GROUND),
    ("platform", GROUND),
    ("message", GROUND),
    ("handler", &["error", "config", "metrics", "message"]),
    ("route", WAIST),
    ("middleware", WAIST),
    ("endpoint", WAIST),
    ("ws", WAIST),
    ("conn", WAIST),
    ("listen", &["error", "config", "metrics", "message", "handler", "conn"]),
    ("proto", &["error", "config", "metrics", "platform", "message", "handler", "conn"]),
    ("server", &["error", "config", "metrics", "platform", "message", "handler", "conn", "listen", "proto"]),
    (
        "app",
        &[
            "error",
            "config",
            "metrics",
            "message",
            "handler",
            "route",
            "middleware",
            "endpoint",
            "ws",
            "conn",
            "listen",
            "proto",
            "server",
        ],
    ),
];

const GROUND: &[&str] = &["error", "config", "metrics"];
const WAIST: &[&str] = &["error", "config", "metrics", "message", "handler"];

#[test]
fn imports_follow_the_table() {
    let mut wrong = Vec::new();
    for path in rust_files(&root().join("src")) {
        let relative = path.strip_prefix(root()).expect("inside").to_string_lossy().replace('\\', "/");
        wrong.extend(violations(&relative, &fs::read_to_string(&path).expect("text")));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_module_of_the_server_is_in_the_table() {
    for entry in fs::read_dir(root().join("src")).expect("src") {
        let name = entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(name == "lib" || find(&name).is_some(), "src/{name} is not in the table");
    }
}

#[test]
fn the_server_does_not_name_pyo3() {
    for path in rust_files(&root().join("src")) {
        assert!(!fs::read_to_string(&path).expect("text").contains("pyo3"), "{} names pyo3", path.display());
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("text");
    assert!(!own_dependencies(&manifest).iter().any(|line| line.contains("pyo3")), "Cargo.toml names pyo3");
}

/// rustls can do its cryptography with this or with that. One is enough to review, to update, and to carry in the wheel.
#[test]
fn there_is_one_cryptography() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--locked", "--workspace", "--edges", "normal,build", "--prefix", "none"]);
    let output = cargo.current_dir(root()).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let tree = String::from_utf8(output.stdout).expect("text");

    let has = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    assert!(has("aws-lc-rs"));
    for other in ["ring", "openssl", "openssl-sys", "native-tls", "rustls-rustcrypto"] {
        assert!(!has(other), "{other} came in: `cargo tree --invert {other}` says by whom");
    }
}

#[test]
fn sees_an_edge_that_the_table_does_not_have() {
    let conn = "use std::io;\n\nuse crate::{\n    config::Config,\n    route::{tree::{self, Tree}, Pattern},\n};\n";
    let proto = "fn f() {\n    // crate::route is fine in a comment\n    crate::ws::accept();\n}\n";

    assert_eq!(violations("src/conn/mod.rs", conn), ["src/conn/mod.rs:5: conn may not import route"]);
    assert_eq!(violations("src/proto/h1.rs", proto), ["src/proto/h1.rs:3: proto may not import ws"]);
    assert_eq!(violations("src/route/mod.rs", "use crate::ws;"), ["src/route/mod.rs:1: route may not import ws"]);
    assert_eq!(
        violations("src/conn/mod.rs", "use super::server::Server;"),
        ["src/conn/mod.rs:1: conn may not import server"]
    );
    assert_eq!(
        violations("src/listen/tcp.rs", "use crate::Request;"),
        ["src/listen/tcp.rs:1: listen imports Request, which is no module: import it from where it is"]
    );
    assert_eq!(violations("src/plugin.rs", ""), ["src/plugin.rs:1: plugin is not in the table"]);
}

#[test]
fn lets_the_edges_of_the_table_be() {
    let proto = "use super::{Looks, Row};\nuse crate::{conn::Cx, message::{Body, Stream}};\npub(crate) fn f() {}\n";

    assert!(violations("src/proto/negotiate.rs", proto).is_empty());
    assert!(violations("src/lib.rs", "pub use crate::app::App;").is_empty());
}

#[test]
fn sees_pyo3_among_the_dependencies_of_the_server_and_not_of_the_workspace() {
    let bad = "[workspace.dependencies]\npyo3 = \"0.29\"\n[dependencies]\npyo3.workspace = true\n[dev-dependencies]\n";
    let good = "[workspace.dependencies]\npyo3 = \"0.29\"\n[dependencies]\nbytes.workspace = true\n";

    assert_eq!(own_dependencies(bad), ["pyo3.workspace = true"]);
    assert_eq!(own_dependencies(good), ["bytes.workspace = true"]);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn find(module: &str) -> Option<&'static [&'static str]> {
    TABLE.iter().find(|(name, _)| *name == module).map(|(_, may)| *may)
}

/// What `file` imports against the table, each as one line that names file, line and edge.
fn violations(file: &str, source: &str) -> Vec<String> {
    let module = file.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default();
    if module == "lib" {
        return Vec::new();
    }
    let Some(may) = find(module) else { return vec![format!("{file}:1: {module} is not in the table")] };
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    // In a module's own file `super` is the crate too; deeper down it is the module.
    let is_top = file.matches('/').count() == 1 || file.ends_with("/mod.rs") && file.matches('/').count() == 2;
    let mut edges = names_behind(&code, "crate::");
    if is_top {
        edges.extend(names_behind(&code, "super::").into_iter().filter(|(_, name)| find(name).is_some()));
    }
    let complain = |(at, name): (usize, String)| {
        let line = code[..at].matches('\n').count() + 1;
        match find(&name) {
            _ if name == module || may.contains(&name.as_str()) => None,
            Some(_) => Some(format!("{file}:{line}: {module} may not import {name}")),
            None => {
                Some(format!("{file}:{line}: {module} imports {name}, which is no module: import it from where it is"))
            }
        }
    };
    edges.into_iter().filter_map(complain).collect()
}

/// The first names of all paths that start with `prefix`, in braces or not, and where they are.
fn names_behind(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':' | '$')) {
            continue;
        }
        let start = at + prefix.len();
        if !code[start..].starts_with('{') {
            names.extend(name_at(code, start));
            continue;
        }
        let mut depth = 0;
        for (offset, character) in code[start..].char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 1 && matches!(character, '{' | ',') {
                names.extend(name_at(code, start + offset + 1));
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

fn name_at(code: &str, start: usize) -> Option<(usize, String)> {
    let start = start + code[start..].len() - code[start..].trim_start().len();
    let name: String = code[start..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some((start, name))
}

fn own_dependencies(manifest: &str) -> Vec<&str> {
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty()).collect()
}
