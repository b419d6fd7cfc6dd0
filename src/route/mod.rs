//! Routing: which value answers a method and a path, and what to say when none does.
//!
//! Rules
//! 1. Of the patterns that match a path, the most specific one *that has the method* answers. A more specific pattern
//!    without the method does not hide a less specific one with it: `GET /users/me` beside `ANY /users/{rest:path}`
//!    leaves `POST /users/me` to the latter.
//! 2. A pattern has a method if it is registered for it, or for GET and the method is HEAD (RFC 9110 §9.3.2), or for any
//!    method; in that order.
//! 3. If patterns match but none has the method: OPTIONS is answered with `Allow` (RFC 9110 §9.3.7), everything else is
//!    405 with `Allow` (RFC 9110 §15.5.6). `Allow` lists the methods of all patterns that match the path.
//! 4. Two patterns that differ at most in parameter names conflict if they share a method; the second is refused. With
//!    different methods they may name their parameters differently.
//! 5. A path that cannot be decoded to UTF-8 is bad, whatever patterns there are; not merely unknown.

use std::collections::BTreeSet;
use std::fmt;

use http::{HeaderValue, Method};
use memchr::memchr;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod naive;
mod params;
mod pattern;
mod router;
mod tree;

pub use crate::message::Params;
pub use pattern::{BuildError, Converter, Pattern, PatternError};
pub use router::{Refuse, Router};

use tree::Tree;

/// Values by method and path pattern.
///
/// Lookups take `&self`, never wait, and do work that is at most linear in the path's length, whatever the path. They
/// allocate only for percent-decoding, for more than four parameters, and when a pattern that matches lacks the method.
///
/// ```
/// use http::Method;
/// use httpy::route::{Found, Methods, Pattern, Table};
///
/// let mut table = Table::new();
/// table.add(Method::GET.into(), Pattern::parse("/users/{id:int}")?, "one user")?;
/// table.add(Method::GET.into(), Pattern::parse("/users/{name}")?, "a user by name")?;
/// table.add(Methods::any(), Pattern::parse("/old/{rest:path}")?, "another application")?;
///
/// let Found::Match { value, params, .. } = table.find(&Method::GET, "/users/7") else { panic!() };
/// assert_eq!((*value, params.get("/users/7", 0)), ("one user", Some("7")));
///
/// let Found::MethodNotAllowed { allow } = table.find(&Method::POST, "/users/7") else { panic!() };
/// assert_eq!(allow, "GET, HEAD, OPTIONS");
///
/// assert!(matches!(table.find(&Method::GET, "/nowhere"), Found::NotFound));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Table<T> {
    tree: Tree,
    /// By the tree's leaf numbers.
    leaves: Vec<Leaf<T>>,
}

/// The methods that a route answers: at least one, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods {
    /// None is any method.
    list: Option<Vec<Method>>,
}

/// What a [`Table`] says about a method and a path.
#[derive(Debug)]
pub enum Found<'a, T> {
    /// A route answers.
    Match {
        /// What was registered.
        value: &'a T,
        /// The pattern it was registered with.
        pattern: &'a Pattern,
        /// What the path has for the pattern's parameters.
        params: Params,
        /// The method is HEAD, and a route for GET answers it.
        head: bool,
    },
    /// The method is OPTIONS, the path is known, and no route answers OPTIONS itself.
    Options {
        /// The methods of the path, for the field `Allow`.
        allow: HeaderValue,
    },
    /// 405: the path is known, but not with this method.
    MethodNotAllowed {
        /// The methods of the path, for the field `Allow`.
        allow: HeaderValue,
    },
    /// 404: no pattern matches the path.
    NotFound,
    /// 400: the path's percent-encoding is malformed, or what it decodes to is not UTF-8.
    BadPath,
}

/// Two routes that would answer the same requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The method they share. None is any method.
    pub method: Option<Method>,
    /// The pattern that was refused.
    pub pattern: Pattern,
    /// The pattern that was there already.
    pub existing: Pattern,
}

/// All routes whose patterns differ at most in parameter names.
#[derive(Debug)]
struct Leaf<T> {
    routes: Vec<Route<T>>,
    /// Who answers a method, HEAD by the route for GET included.
    choices: Vec<(Method, Choice)>,
    any: Option<Choice>,
    allow: HeaderValue,
}

#[derive(Debug)]
struct Route<T> {
    pattern: Pattern,
    value: T,
}

#[derive(Clone, Copy, Debug)]
struct Choice {
    /// Index in [`Leaf::routes`].
    route: usize,
    head: bool,
}

impl<T> Table<T> {
    /// A table without routes.
    pub fn new() -> Self {
        Self { tree: Tree::default(), leaves: Vec::new() }
    }

    /// Registers a value for some methods of a pattern.
    ///
    /// # Errors
    /// If a route with one of the methods, and a pattern that differs at most in parameter names, is there already. The
    /// table is unchanged then.
    pub fn add(&mut self, methods: Methods, pattern: Pattern, value: T) -> Result<(), Conflict> {
        let leaf = self.tree.insert(&pattern);
        if leaf == self.leaves.len() {
            self.leaves.push(Leaf::new());
        }
        self.leaves[leaf].add(methods, pattern, value)
    }

    /// Finds who answers a method and a path.
    ///
    /// `path` is the path of a request target in origin form, without query and still percent-encoded.
    #[inline]
    pub fn find(&self, method: &Method, path: &str) -> Found<'_, T> {
        let is_escaped = memchr(b'%', path.as_bytes()).is_some();
        if is_escaped && !params::is_decodable(path) {
            return Found::BadPath;
        }
        if !is_escaped
            && let Some(leaf) = self.tree.find_static(path)
            && let Some((route, head)) = self.leaves[leaf].find(method)
        {
            let Route { pattern, value } = route;
            return Found::Match { value, pattern, params: Params::default(), head };
        }
        self.find_in_tree(method, path, is_escaped)
    }

    /// The same path with a slash added to its end, or removed from it, if that one has the method.
    ///
    /// For redirecting after [`Found::NotFound`]. The path stays percent-encoded, and never starts with what a client
    /// could take for a host: no `//`, no `/\`.
    pub fn find_other_slash(&self, method: &Method, path: &str) -> Option<String> {
        // RFC 3986 §4.2: `Location: //evil.example` leads to another host; browsers read `\` as `/`.
        if path.starts_with("//") || path.starts_with("/\\") {
            return None;
        }
        let other = match path.strip_suffix('/') {
            Some(without) => without.to_owned(),
            None => format!("{path}/"),
        };
        matches!(self.find(method, &other), Found::Match { .. }).then_some(other)
    }

    fn find_in_tree(&self, method: &Method, path: &str, is_escaped: bool) -> Found<'_, T> {
        // `Params` counts in `u32`. Nobody sends a path of 4 GiB past the limit of the request line.
        if u32::try_from(path.len()).is_err() {
            return Found::NotFound;
        }
        let mut without_method = Vec::new();
        let choice = self.tree.walk(path, is_escaped, |leaf| {
            let leaf = &self.leaves[leaf];
            let choice = leaf.find(method);
            if choice.is_none() {
                without_method.push(leaf);
            }
            choice
        });
        if let Some((Route { pattern, value }, head)) = choice {
            let params = match is_escaped {
                true => params::from_escaped(pattern, path),
                false => params::from_plain(pattern, path),
            };
            return Found::Match { value, pattern, params, head };
        }
        let allow = match without_method.as_slice() {
            [] => return Found::NotFound,
            [leaf] => leaf.allow.clone(),
            leaves => allow(leaves.iter().flat_map(|leaf| leaf.methods())),
        };
        match *method {
            Method::OPTIONS => Found::Options { allow },
            _ => Found::MethodNotAllowed { allow },
        }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Leaf<T> {
    fn new() -> Self {
        Self { routes: Vec::new(), choices: Vec::new(), any: None, allow: allow([].into_iter()) }
    }

    fn add(&mut self, methods: Methods, pattern: Pattern, value: T) -> Result<(), Conflict> {
        if let Some((method, existing)) = self.find_conflict(&methods) {
            return Err(Conflict { method, pattern, existing });
        }
        let route = self.routes.len();
        let choice = Choice { route, head: false };
        match methods.list {
            None => self.any = Some(choice),
            Some(list) => {
                // An explicit HEAD replaces the one that came with GET.
                self.choices.retain(|(method, choice)| !(choice.head && list.contains(method)));
                self.choices.extend(list.into_iter().map(|method| (method, choice)));
            }
        }
        if let Some(get) = self.choice(&Method::GET)
            && self.choice(&Method::HEAD).is_none()
        {
            self.choices.push((Method::HEAD, Choice { head: true, ..get }));
        }
        self.allow = allow(self.methods());
        self.routes.push(Route { pattern, value });
        Ok(())
    }

    fn find_conflict(&self, methods: &Methods) -> Option<(Option<Method>, Pattern)> {
        let taken = |choice: Choice| self.routes[choice.route].pattern.clone();
        match &methods.list {
            None => self.any.map(|choice| (None, taken(choice))),
            Some(list) => list.iter().find_map(|method| {
                let choice = self.choice(method).filter(|choice| !choice.head)?;
                Some((Some(method.clone()), taken(choice)))
            }),
        }
    }

    #[inline]
    fn find(&self, method: &Method) -> Option<(&Route<T>, bool)> {
        let choice = self.choice(method).or(self.any)?;
        Some((&self.routes[choice.route], choice.head))
    }

    #[inline]
    fn choice(&self, method: &Method) -> Option<Choice> {
        self.choices.iter().find(|(other, _)| other == method).map(|(_, choice)| *choice)
    }

    fn methods(&self) -> impl Iterator<Item = &Method> {
        self.choices.iter().map(|(method, _)| method)
    }
}

/// The field `Allow`: these methods and OPTIONS, which every path answers; sorted.
fn allow<'m>(methods: impl Iterator<Item = &'m Method>) -> HeaderValue {
    let names: BTreeSet<&str> = methods.map(Method::as_str).chain(["OPTIONS"]).collect();
    let list = names.into_iter().collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(list).expect("methods are tokens, which are visible ASCII (RFC 9110 §9.1)")
}

impl Methods {
    /// Every method, those included that nobody has heard of yet.
    pub fn any() -> Self {
        Self { list: None }
    }

    /// What a server that has routes with these methods allows, for `OPTIONS *`.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let list = self.list.as_deref().unwrap_or_default();
        let head = list.contains(&Method::GET).then_some("HEAD");
        list.iter().map(Method::as_str).chain(head).chain(["OPTIONS"])
    }

    /// These methods; none if there are none.
    pub fn from_list(methods: impl IntoIterator<Item = Method>) -> Option<Self> {
        let mut list: Vec<Method> = Vec::new();
        for method in methods {
            if !list.contains(&method) {
                list.push(method);
            }
        }
        (!list.is_empty()).then_some(Self { list: Some(list) })
    }
}

impl From<Method> for Methods {
    fn from(method: Method) -> Self {
        Self { list: Some(vec![method]) }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, pattern, existing } = self;
        let method = method.as_ref().map_or("ANY", Method::as_str);
        write!(f, "route {method} {pattern} conflicts with {method} {existing}, which is there already")
    }
}

impl std::error::Error for Conflict {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &'static str)]) -> Table<&'static str> {
        let mut table = Table::new();
        for (methods, pattern) in routes {
            table.add(methods_of(methods), Pattern::parse(pattern).unwrap(), *pattern).unwrap();
        }
        table
    }

    /// `"GET POST"`, or `"ANY"`.
    fn methods_of(names: &str) -> Methods {
        match names {
            "ANY" => Methods::any(),
            _ => Methods::from_list(names.split(' ').map(method)).unwrap(),
        }
    }

    fn method(name: &str) -> Method {
        Method::from_bytes(name.as_bytes()).unwrap()
    }

    /// What is found, in one line.
    fn found(table: &Table<&'static str>, name: &str, path: &str) -> String {
        match table.find(&method(name), path) {
            Found::Match { value, pattern, params, head } => {
                let names = pattern.parameters().map(|(name, _)| name);
                let values: Vec<_> =
                    names.enumerate().map(|(at, name)| (name, params.get(path, at).unwrap())).collect();
                assert_eq!(params.get(path, values.len()), None);
                let list: String = values.iter().map(|(name, value)| format!(" {name}={value}")).collect();
                format!("{value}{list}{}", if head { " for HEAD" } else { "" })
            }
            Found::Options { allow } => format!("options: {}", allow.to_str().unwrap()),
            Found::MethodNotAllowed { allow } => format!("405: {}", allow.to_str().unwrap()),
            Found::NotFound => "404".to_owned(),
            Found::BadPath => "400".to_owned(),
        }
    }

    #[test]
    fn finds_values_and_parameters() {
        let table = table(&[
            ("GET", "/"),
            ("GET", "/users/me"),
            ("GET", "/users/{id:int}"),
            ("GET", "/users/{name}"),
            ("GET", "/users/{name}/files/{file}.json"),
            ("GET", "/static/{rest:path}"),
        ]);

        assert_eq!(found(&table, "GET", "/"), "/");
        assert_eq!(found(&table, "GET", "/users/me"), "/users/me");
        assert_eq!(found(&table, "GET", "/users/m%65"), "/users/me");
        assert_eq!(found(&table, "GET", "/users/42"), "/users/{id:int} id=42");
        assert_eq!(found(&table, "GET", "/users/a%2Fb"), "/users/{name} name=a/b");
        assert_eq!(found(&table, "GET", "/users/a/files/b.json"), "/users/{name}/files/{file}.json name=a file=b");
        assert_eq!(found(&table, "GET", "/static/"), "/static/{rest:path} rest=");
        assert_eq!(found(&table, "GET", "/static/a%2Fb/%20"), "/static/{rest:path} rest=a%2Fb/ ");
        assert_eq!(found(&table, "GET", "/static"), "404");
        assert_eq!(found(&table, "GET", "*"), "404");
        assert_eq!(found(&table, "GET", ""), "404");
    }

    #[test]
    fn a_path_that_cannot_be_decoded_is_bad_wherever_it_leads() {
        let table = table(&[("GET", "/a/{b}")]);

        assert_eq!(found(&table, "GET", "/a/%zz"), "400");
        assert_eq!(found(&table, "GET", "/a/%2"), "400");
        assert_eq!(found(&table, "GET", "/a/%FF"), "400");
        assert_eq!(found(&table, "POST", "/nowhere/%"), "400");
    }

    #[test]
    fn get_answers_head_unless_head_is_registered() {
        let implied = table(&[("GET", "/a"), ("POST", "/a")]);
        let before = table(&[("HEAD", "/{x}"), ("GET", "/{y}")]);
        let after = table(&[("GET", "/{y}"), ("HEAD", "/{x}")]);
        let both = table(&[("HEAD GET", "/a")]);

        assert_eq!(found(&implied, "HEAD", "/a"), "/a for HEAD");
        assert_eq!(found(&before, "HEAD", "/1"), "/{x} x=1");
        assert_eq!(found(&after, "HEAD", "/1"), "/{x} x=1");
        assert_eq!(found(&after, "GET", "/1"), "/{y} y=1");
        assert_eq!(found(&both, "HEAD", "/a"), "/a");
    }

    #[test]
    fn head_without_get_is_not_get() {
        let table = table(&[("HEAD", "/a")]);

        assert_eq!(found(&table, "GET", "/a"), "405: HEAD, OPTIONS");
    }

    #[test]
    fn options_is_answered_unless_registered() {
        let table = table(&[("GET", "/a"), ("GET", "/b"), ("OPTIONS", "/b"), ("ANY", "/c")]);

        assert_eq!(found(&table, "OPTIONS", "/a"), "options: GET, HEAD, OPTIONS");
        assert_eq!(found(&table, "OPTIONS", "/b"), "/b");
        assert_eq!(found(&table, "OPTIONS", "/c"), "/c");
        assert_eq!(found(&table, "OPTIONS", "/d"), "404");
    }

    #[test]
    fn another_method_is_405_with_the_methods_of_every_pattern_that_matches() {
        // RFC 9110 §15.5.6: a 405 response has an Allow field with the currently supported methods.
        let table = table(&[("PUT", "/a/b"), ("GET", "/a/{x}"), ("DELETE PURGE", "/{p:path}"), ("PATCH", "/a/{x}/c")]);

        assert_eq!(found(&table, "POST", "/a/b"), "405: DELETE, GET, HEAD, OPTIONS, PURGE, PUT");
        assert_eq!(found(&table, "OPTIONS", "/a/b"), "options: DELETE, GET, HEAD, OPTIONS, PURGE, PUT");
        assert_eq!(found(&table, "POST", "/b"), "405: DELETE, OPTIONS, PURGE");
    }

    #[test]
    fn a_pattern_without_the_method_does_not_hide_one_with_it() {
        let table =
            table(&[("GET", "/users/me"), ("GET", "/users/{id}"), ("POST", "/users/{name}"), ("ANY", "/{p:path}")]);

        assert_eq!(found(&table, "GET", "/users/me"), "/users/me");
        assert_eq!(found(&table, "POST", "/users/me"), "/users/{name} name=me");
        assert_eq!(found(&table, "PUT", "/users/me"), "/{p:path} p=users/me");
        assert_eq!(found(&table, "HEAD", "/users/me"), "/users/me for HEAD");
    }

    #[test]
    fn methods_are_tokens_that_are_compared_exactly() {
        // RFC 9110 §9.1: the method token is case-sensitive.
        let table = table(&[("PURGE", "/a"), ("GET", "/a")]);

        assert_eq!(found(&table, "PURGE", "/a"), "/a");
        assert_eq!(found(&table, "purge", "/a"), "405: GET, HEAD, OPTIONS, PURGE");
        assert_eq!(found(&table, "get", "/a"), "405: GET, HEAD, OPTIONS, PURGE");
    }

    #[test]
    fn any_method_comes_after_the_ones_with_a_name() {
        let mut table = Table::new();
        for (methods, value) in [("ANY", "any"), ("GET", "get"), ("PURGE", "purge")] {
            table.add(methods_of(methods), Pattern::parse("/a").unwrap(), value).unwrap();
        }

        assert_eq!(found(&table, "GET", "/a"), "get");
        assert_eq!(found(&table, "HEAD", "/a"), "get for HEAD");
        assert_eq!(found(&table, "PURGE", "/a"), "purge");
        assert_eq!(found(&table, "BREW", "/a"), "any");
    }

    #[test]
    fn patterns_that_differ_only_in_names_conflict_in_the_same_method() {
        let mut table = table(&[("GET", "/users/{id}"), ("ANY", "/any"), ("GET POST", "/a/{x:int}.json")]);
        let mut refused = |methods: &str, pattern: &str| {
            let pattern = Pattern::parse(pattern).unwrap();
            table.add(methods_of(methods), pattern, "new").unwrap_err().to_string()
        };

        assert_eq!(
            refused("PUT GET", "/users/:name"),
            "route GET /users/{name} conflicts with GET /users/{id}, which is there already"
        );
        assert_eq!(refused("ANY", "/any"), "route ANY /any conflicts with ANY /any, which is there already");
        assert_eq!(
            refused("POST", "/a/<int:y>.json"),
            "route POST /a/{y:int}.json conflicts with POST /a/{x:int}.json, which is there already"
        );
        assert_eq!(found(&table, "PUT", "/users/1"), "405: GET, HEAD, OPTIONS");
    }

    #[test]
    fn different_methods_or_converters_do_not_conflict() {
        let table =
            table(&[("GET", "/{id}"), ("POST", "/{name}"), ("GET", "/{id:int}"), ("ANY", "/{x}"), ("HEAD", "/{y}")]);

        assert_eq!(found(&table, "POST", "/a"), "/{name} name=a");
        assert_eq!(found(&table, "GET", "/1"), "/{id:int} id=1");
    }

    #[test]
    fn a_path_with_the_other_slash_is_found() {
        let table = table(&[("GET", "/a"), ("GET", "/b/"), ("POST", "/c/{x}"), ("GET", "/{p:path}")]);
        let other = |name: &str, path: &str| table.find_other_slash(&method(name), path);

        assert_eq!(other("GET", "/a/").as_deref(), Some("/a"));
        assert_eq!(other("GET", "/b").as_deref(), Some("/b/"));
        assert_eq!(other("POST", "/c/%20/").as_deref(), Some("/c/%20"));
        assert_eq!(other("POST", "/a/"), None);
        assert_eq!(other("POST", "/nowhere"), None);
        assert_eq!(other("GET", "/"), None);
        assert_eq!(other("GET", ""), Some("/".to_owned()));
    }

    #[test]
    fn the_other_slash_never_names_another_host() {
        // RFC 3986 §4.2: a relative reference that starts with `//` has an authority.
        let table = table(&[("GET", "/{p:path}")]);

        for path in ["//evil.example/", "//evil.example", "/\\evil.example/", "//"] {
            assert_eq!(table.find_other_slash(&Method::GET, path), None, "{path}");
        }
    }
}
