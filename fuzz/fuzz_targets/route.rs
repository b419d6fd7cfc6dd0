//! Path patterns and request paths: any text. Nothing panics, what parses reads back the same, what is built is found
//! again with the same values, and a route that is refused leaves the table as it was.
#![no_main]

use http::Method;
use httpy::route::{Found, Methods, Pattern, Table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<String>, Vec<String>)| {
    let (patterns, paths) = input;
    let mut table = Table::new();
    for (number, text) in patterns.iter().take(16).enumerate() {
        let Ok(pattern) = Pattern::parse(text) else { continue };
        let canonical = pattern.to_string();
        let again = Pattern::parse(&canonical).expect("the canonical spelling is a pattern");
        assert_eq!(again, pattern, "{canonical}");
        let _ = table.add(Methods::from(Method::GET), pattern, number);
    }
    for path in paths.iter().take(16) {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST] {
            if let Found::Match { pattern, params, .. } = table.find(&method, path) {
                let names: Vec<&str> = pattern.parameters().map(|(name, _)| name).collect();
                let values: Vec<(&str, &str)> = names
                    .iter()
                    .enumerate()
                    .map(|(index, name)| (*name, params.get(path, index).expect("a value for every parameter")))
                    .collect();
                // Some values can't be written back: dot segments, and slashes that were encoded.
                if let Ok(built) = pattern.build(&values) {
                    assert!(!matches!(table.find(&Method::GET, &built), Found::NotFound | Found::BadPath), "{built}");
                }
            }
            let _ = table.find_other_slash(&method, path);
        }
    }
});
