//! Property tests: the table against a matcher that goes through all routes, one after the other.
//!
//! `PROPTEST_CASES=100000` runs more than the 256 cases that fit into a quarter of a second.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "OPTIONS", "PURGE", "ANY"];

/// What one segment of a pattern looks like: `(prefix, converter, suffix)`, or a literal.
#[derive(Clone, Debug)]
enum Part {
    Literal(&'static str),
    Parameter(&'static str, &'static str, &'static str),
}

/// A route that matches: its method, its number and the values.
type Candidate<'r> = (&'r str, usize, Vec<String>);

/// How specific a match is, segment by segment; less is more specific.
type Rank = Vec<(usize, Reverse<usize>, Reverse<usize>, String)>;

fn part() -> impl Strategy<Value = Part> {
    let literal = prop::sample::select(vec!["", "a", "b", "1", "1.5", "é", "a b", "%", "a.b"]);
    let prefix = prop::sample::select(vec!["", "", "", "a", "1"]);
    let suffix = prop::sample::select(vec!["", "", "", ".b", "5"]);
    let converter = prop::sample::select(vec!["str", "int", "float", "uuid"]);
    prop_oneof![
        literal.prop_map(Part::Literal),
        (prefix, converter, suffix).prop_map(|(prefix, converter, suffix)| Part::Parameter(prefix, converter, suffix)),
    ]
}

/// A pattern as its parts, the last of which may be a path.
fn parts() -> impl Strategy<Value = Vec<Part>> {
    (prop::collection::vec(part(), 1..5), prop::bool::weighted(0.2)).prop_map(|(mut parts, has_rest)| {
        if matches!(parts[0], Part::Literal("")) && parts.len() > 1 {
            parts[0] = Part::Literal("a");
        }
        if has_rest {
            *parts.last_mut().unwrap() = Part::Parameter("", "path", "");
        }
        parts
    })
}

fn spell(parts: &[Part]) -> String {
    let spell = |(at, part): (usize, &Part)| match part {
        Part::Literal(text) => format!("/{text}"),
        Part::Parameter(prefix, converter, suffix) => format!("/{prefix}{{p{at}:{converter}}}{suffix}"),
    };
    parts.iter().enumerate().map(spell).collect()
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec![
        "",
        "a",
        "b",
        "1",
        "15",
        "115",
        "1.5",
        "a.b",
        "aa.b",
        "1.b",
        "é",
        "%C3%A9",
        "a%20b",
        "%61",
        "%31",
        "a%2Fb",
        "%25",
        "%2f",
        ".",
        "..",
        "00000000-0000-0000-0000-000000000000",
        "a00000000-0000-0000-0000-000000000000",
        "%zz",
        "%FF",
    ]);
    prop::collection::vec(segment, 1..6).prop_map(|segments| format!("/{}", segments.join("/")))
}

fn accepts(converter: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match converter {
        "int" => digits(value),
        "float" => {
            digits(value) || matches!(value.split('.').collect::<Vec<_>>()[..], [a, b] if digits(a) && digits(b))
        }
        "uuid" => {
            let lengths: Vec<_> = value.split('-').map(str::len).collect();
            lengths == [8, 4, 4, 4, 12] && value.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
        }
        _ => !value.is_empty(),
    }
}

fn decode(raw: &str) -> String {
    percent_decode_str(raw).decode_utf8().unwrap().into_owned()
}

/// Whether the pattern matches, how specifically and with what values: segment by segment, with everything allocated.
fn naive_match(parts: &[Part], path: &str) -> Option<(Rank, Vec<String>)> {
    let segments: Vec<&str> = path[1..].split('/').collect();
    let (mut rank, mut values) = (Rank::new(), Vec::new());
    for (at, part) in parts.iter().enumerate() {
        let text = decode(segments.get(at)?);
        match part {
            Part::Literal(literal) => {
                (text == *literal).then_some(())?;
                rank.push((0, Reverse(0), Reverse(0), String::new()));
            }
            Part::Parameter(_, "path", _) => {
                let rest = segments[at..].join("/").replace("%2F", "%252F").replace("%2f", "%252f");
                values.push(decode(&rest));
                rank.push((9, Reverse(0), Reverse(0), String::new()));
                return Some((rank, values));
            }
            Part::Parameter(prefix, converter, suffix) => {
                let value = text.strip_prefix(prefix)?.strip_suffix(suffix)?.to_owned();
                accepts(converter, &value).then_some(())?;
                values.push(value);
                let kind = 1 + ["int", "float", "uuid", "str"].iter().position(|name| name == converter).unwrap();
                let literal = Reverse(prefix.len() + suffix.len());
                rank.push((kind, literal, Reverse(prefix.len()), format!("{prefix} {suffix}")));
            }
        }
    }
    (segments.len() == parts.len()).then_some((rank, values))
}

/// The answer in words, by going through all routes.
fn naive_find(routes: &[(&str, Vec<Part>)], method: &str, path: &str) -> String {
    let escapes: Vec<&str> = path.split('%').skip(1).collect();
    let is_hex = |text: &&str| text.len() >= 2 && text.chars().take(2).all(|c| c.is_ascii_hexdigit());
    if !escapes.iter().all(is_hex) || percent_decode_str(path).decode_utf8().is_err() {
        return "400".to_owned();
    }
    let mut by_rank: BTreeMap<Rank, Vec<Candidate<'_>>> = BTreeMap::new();
    for (number, (method, parts)) in routes.iter().enumerate() {
        if let Some((rank, values)) = naive_match(parts, path) {
            by_rank.entry(rank).or_default().push((method, number, values));
        }
    }
    let wanted: &[&str] = if method == "HEAD" { &["HEAD", "GET", "ANY"] } else { &[method, "ANY"] };
    for candidates in by_rank.values() {
        for wanted in wanted {
            if let Some((_, number, values)) = candidates.iter().find(|(other, ..)| other == wanted) {
                let head = method == "HEAD" && *wanted == "GET";
                return format!("{number} {values:?} {head}");
            }
        }
    }
    let mut allow: BTreeSet<&str> = by_rank.values().flatten().map(|(method, ..)| *method).collect();
    if allow.is_empty() {
        return "404".to_owned();
    }
    if allow.contains("GET") {
        allow.insert("HEAD");
    }
    allow.insert("OPTIONS");
    let allow = allow.into_iter().collect::<Vec<_>>().join(", ");
    if method == "OPTIONS" { format!("options {allow}") } else { format!("405 {allow}") }
}

fn find(table: &Table<usize>, method: &str, path: &str) -> String {
    match table.find(&Method::from_bytes(method.as_bytes()).unwrap(), path) {
        Found::Match { value, pattern, params, head } => {
            let values: Vec<_> = (0..pattern.parameters().count()).map(|at| params.get(path, at).unwrap()).collect();
            format!("{value} {values:?} {head}")
        }
        Found::Options { allow } => format!("options {}", allow.to_str().unwrap()),
        Found::MethodNotAllowed { allow } => format!("405 {}", allow.to_str().unwrap()),
        Found::NotFound => "404".to_owned(),
        Found::BadPath => "400".to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_what_a_linear_search_finds(
        candidates in prop::collection::vec((prop::sample::select(METHODS.to_vec()), parts()), 1..25),
        paths in prop::collection::vec(path(), 1..10),
    ) {
        let mut table = Table::new();
        let mut routes: Vec<(&str, Vec<Part>)> = Vec::new();
        for (method, parts) in candidates {
            let methods = match method {
                "ANY" => Methods::any(),
                _ => Method::from_bytes(method.as_bytes()).unwrap().into(),
            };
            let is_new = !routes.iter().any(|(other, known)| *other == method && spell(known) == spell(&parts));
            let added = table.add(methods, Pattern::parse(&spell(&parts)).unwrap(), routes.len());
            prop_assert_eq!(added.is_ok(), is_new, "{} {}", method, spell(&parts));
            if is_new {
                routes.push((method, parts));
            }
        }

        for path in &paths {
            for method in &METHODS[..5] {
                prop_assert_eq!(find(&table, method, path), naive_find(&routes, method, path), "{} {}", method, path);
            }
        }
    }

    #[test]
    fn whatever_is_parsed_is_spelled_so_that_it_parses_again(text in "/?([a{}<>:*/é%?_1-]|int|path|str){0,12}") {
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert_eq!(Pattern::parse(&pattern.to_string()), Ok(pattern));
        }
    }

    #[test]
    fn a_built_path_matches_its_pattern_with_the_same_values(
        literal in "[a-zé %.]{1,4}", a in ".{1,8}", b in "[0-9]{1,6}", c in "[^%]{0,12}",
    ) {
        let text = format!("/{literal}/{{a}}/v{{b:int}}.json/{{c:path}}");
        let pattern = Pattern::parse(&text).unwrap();
        let Ok(path) = pattern.build(&[("a", &a), ("b", &b), ("c", &c)]) else { return Ok(()) };
        let mut table = Table::new();
        table.add(Method::GET.into(), pattern, 0).unwrap();

        let Found::Match { params, .. } = table.find(&Method::GET, &path) else { panic!("{path}") };

        prop_assert_eq!(params.get(&path, 0), Some(&*a));
        prop_assert_eq!(params.get(&path, 1), Some(&*b));
        prop_assert_eq!(params.get(&path, 2), Some(&*c));
    }

    #[test]
    fn no_path_makes_a_lookup_panic(path in ".{0,40}", tail in "[/%a-f0-9]{0,20}") {
        let mut table = Table::new();
        for pattern in ["/{a}/{b}/c{d}", "/{a:int}", "/%/{p:path}", "/{p:path}"] {
            table.add(Method::GET.into(), Pattern::parse(pattern).unwrap(), ()).unwrap();
        }

        for path in [path.clone(), format!("/{path}"), format!("/{path}/{tail}"), format!("/{tail}")] {
            let _ = table.find(&Method::GET, &path);
            let _ = table.find_other_slash(&Method::GET, &path);
        }
    }
}
