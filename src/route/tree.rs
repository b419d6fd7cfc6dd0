//! From a path to the leaves whose patterns match it, the most specific first. Knows no methods and no values.
//!
//! Rules
//! 1. A path is split at `/`; a segment is decoded after the split and then compared (RFC 3986 §2.4, §3.3).
//! 2. At every segment a literal wins over a parameter, and a parameter that accepts less over one that accepts more:
//!    int, float, uuid, str; of two alike the one with more literal text around it; `path` last. If the rest of the path
//!    then fails, the next one is tried.
//! 3. Patterns that differ only in their parameters' names have the same leaf.
//!
//! Bound: every node has one parent, and is only reached by as many segments as it is deep. So one lookup enters a node
//! at most once, whatever the path, and tries each edge at most once on one segment: the work is at most (edges of the
//! table) x (length of the path), never exponential, and the recursion is as deep as the longest pattern.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::memchr;

use super::params::decode;
use super::pattern::{Converter, Pattern, Segment, Shape};

/// The patterns of a table. Leaves are numbered from 0 in the order in which they appear.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
    /// Whole paths without parameters: a shortcut, since their leaves are in the tree too.
    statics: Map<usize>,
    leaves: usize,
}

/// By text that the application wrote, so nobody can choose colliding keys. With the standard hasher a static route takes
/// 39 ns instead of 15 ns (`benches/route.rs`).
type Map<V> = HashMap<Box<str>, V, foldhash::fast::FixedState>;

/// All that may follow the same beginning of a pattern.
#[derive(Debug, Default)]
struct Node {
    literals: Map<Node>,
    /// Sorted by specificity.
    parameters: Vec<(Shape, Node)>,
    /// The pattern that goes on with a `path` parameter.
    rest: Option<usize>,
    /// The pattern that ends here.
    leaf: Option<usize>,
}

impl Tree {
    /// The leaf of this pattern, which is made if there is none.
    pub(super) fn insert(&mut self, pattern: &Pattern) -> usize {
        let mut node = &mut self.root;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Parameter(parameter) if parameter.shape.converter == Converter::Path => {
                    return *node.rest.get_or_insert_with(|| next(&mut self.leaves));
                }
                Segment::Parameter(parameter) => child(&mut node.parameters, &parameter.shape),
            };
        }
        let leaf = *node.leaf.get_or_insert_with(|| next(&mut self.leaves));
        if let Some(path) = pattern.static_path() {
            self.statics.insert(path.into(), leaf);
        }
        leaf
    }

    /// The leaf of a pattern without parameters that is exactly this path. It is the most specific one there can be.
    #[inline]
    pub(super) fn find_static(&self, path: &str) -> Option<usize> {
        self.statics.get(path).copied()
    }

    /// Calls `visit` with each leaf that matches, the most specific first, until it returns something.
    ///
    /// `is_escaped` says whether the path holds a `%`; if so its encoding was checked.
    #[inline]
    pub(super) fn walk<R>(&self, path: &str, is_escaped: bool, visit: impl FnMut(usize) -> Option<R>) -> Option<R> {
        let rest = path.strip_prefix('/')?;
        Walk { is_escaped, visit }.descend(&self.root, rest)
    }
}

/// One lookup.
struct Walk<V> {
    is_escaped: bool,
    visit: V,
}

impl<V: FnMut(usize) -> Option<R>, R> Walk<V> {
    /// `rest` is what follows the slash after this node.
    fn descend(&mut self, node: &Node, rest: &str) -> Option<R> {
        count_descent();
        let (raw, after) = match memchr(b'/', rest.as_bytes()) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        let segment = if self.is_escaped { decode(raw) } else { Cow::Borrowed(raw) };
        if let Some(child) = node.literals.get(&*segment)
            && let Some(result) = self.enter(child, after)
        {
            return Some(result);
        }
        for (shape, child) in &node.parameters {
            if shape.value(&segment).is_some()
                && let Some(result) = self.enter(child, after)
            {
                return Some(result);
            }
        }
        node.rest.and_then(&mut self.visit)
    }

    #[inline]
    fn enter(&mut self, node: &Node, after: Option<&str>) -> Option<R> {
        match after {
            Some(rest) => self.descend(node, rest),
            None => node.leaf.and_then(&mut self.visit),
        }
    }
}

/// The node behind a shape, which is made if there is none.
fn child<'n>(children: &'n mut Vec<(Shape, Node)>, shape: &Shape) -> &'n mut Node {
    let at = children.binary_search_by(|(other, _)| other.cmp(shape)).unwrap_or_else(|at| {
        children.insert(at, (shape.clone(), Node::default()));
        at
    });
    &mut children[at].1
}

fn next(leaves: &mut usize) -> usize {
    *leaves += 1;
    *leaves - 1
}

#[cfg(not(test))]
#[inline(always)]
fn count_descent() {}

#[cfg(test)]
use tests::count_descent;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static DESCENTS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count_descent() {
        DESCENTS.set(DESCENTS.get() + 1);
    }

    fn tree(patterns: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for (number, pattern) in patterns.iter().enumerate() {
            assert_eq!(tree.insert(&Pattern::parse(pattern).unwrap()), number, "{pattern}");
        }
        tree
    }

    /// All patterns that match, the most specific first.
    fn matches<'p>(patterns: &[&'p str], path: &str) -> Vec<&'p str> {
        let mut found = Vec::new();
        tree(patterns).walk(path, path.contains('%'), |leaf| -> Option<()> {
            found.push(patterns[leaf]);
            None
        });
        found
    }

    fn nodes(node: &Node) -> usize {
        let literals: usize = node.literals.values().map(nodes).sum();
        let parameters: usize = node.parameters.iter().map(|(_, child)| nodes(child)).sum();
        1 + literals + parameters
    }

    #[test]
    fn less_accepting_patterns_come_first() {
        let patterns = ["/{p:path}", "/{s}", "/1{s}", "/{u:uuid}", "/{f:float}", "/{i:int}", "/1{i:int}", "/12"];

        assert_eq!(
            matches(&patterns, "/12"),
            ["/12", "/1{i:int}", "/{i:int}", "/{f:float}", "/1{s}", "/{s}", "/{p:path}"]
        );
        assert_eq!(matches(&patterns, "/1.5"), ["/{f:float}", "/1{s}", "/{s}", "/{p:path}"]);
        assert_eq!(matches(&patterns, "/a/b"), ["/{p:path}"]);
    }

    #[test]
    fn the_order_is_that_of_the_first_segment_that_differs() {
        let patterns = ["/{a}/x", "/a/{b}", "/a/{b:path}"];

        assert_eq!(matches(&patterns, "/a/x"), ["/a/{b}", "/a/{b:path}", "/{a}/x"]);
    }

    #[test]
    fn a_literal_that_leads_nowhere_does_not_hide_a_parameter() {
        assert_eq!(matches(&["/users/me/edit", "/users/{id}"], "/users/me"), ["/users/{id}"]);
        assert_eq!(matches(&["/a/b/c", "/{x}/b/{y}", "/a/{p:path}"], "/a/b/d"), ["/a/{p:path}", "/{x}/b/{y}"]);
    }

    #[test]
    fn names_do_not_make_a_difference() {
        let mut tree = tree(&["/{a}", "/x/{a:int}.json", "/*a"]);

        assert_eq!(tree.insert(&Pattern::parse("/{b}").unwrap()), 0);
        assert_eq!(tree.insert(&Pattern::parse("/x/<int:b>.json").unwrap()), 1);
        assert_eq!(tree.insert(&Pattern::parse("/{b:path}").unwrap()), 2);
        assert_eq!(tree.insert(&Pattern::parse("/{b:int}").unwrap()), 3);
    }

    #[test]
    fn empty_segments_are_segments_that_no_str_matches() {
        assert_eq!(matches(&["/", "/{a}"], "/"), ["/"]);
        assert_eq!(matches(&["/", "/{a}"], "//"), [""; 0]);
        assert_eq!(matches(&["/a", "/a/", "/a//b", "/a/{b}"], "/a/"), ["/a/"]);
        assert_eq!(matches(&["/a", "/a/", "/a//b", "/a/{b}/b"], "/a//b"), ["/a//b"]);
    }

    #[test]
    fn a_path_parameter_may_be_empty_but_needs_its_slash() {
        assert_eq!(matches(&["/static/{p:path}"], "/static/"), ["/static/{p:path}"]);
        assert_eq!(matches(&["/static/{p:path}"], "/static//"), ["/static/{p:path}"]);
        assert_eq!(matches(&["/static/{p:path}"], "/static"), [""; 0]);
        assert_eq!(matches(&["/{p:path}"], "/"), ["/{p:path}"]);
    }

    #[test]
    fn a_segment_is_decoded_after_the_split() {
        assert_eq!(matches(&["/café", "/a", "/a/b"], "/caf%C3%A9"), ["/café"]);
        assert_eq!(matches(&["/café", "/a", "/a/b"], "/%61"), ["/a"]);
        assert_eq!(matches(&["/a/b", "/{x}"], "/a%2Fb"), ["/{x}"]);
        assert_eq!(matches(&["/{i:int}", "/{x}"], "/%31"), ["/{i:int}", "/{x}"]);
        assert_eq!(matches(&["/%61"], "/%61"), [""; 0]);
        assert_eq!(matches(&["/%61"], "/%2561"), ["/%61"]);
    }

    #[test]
    fn dot_segments_are_not_resolved() {
        assert_eq!(matches(&["/a", "/a/{x}/b", "/b"], "/a/../b"), ["/a/{x}/b"]);
        assert_eq!(matches(&["/a", "/b"], "/./b"), [""; 0]);
    }

    #[test]
    fn only_paths_that_start_with_a_slash_match() {
        assert_eq!(matches(&["/", "/{p:path}"], ""), [""; 0]);
        assert_eq!(matches(&["/", "/{p:path}"], "*"), [""; 0]);
    }

    #[test]
    fn a_hostile_path_enters_each_node_at_most_once() {
        // Each of six segments is a literal, an int, a float or a str, and every alternative fails at the very end: the
        // worst a table of this size can be made to do.
        let depth = 6;
        let kinds = ["1", "{#:int}", "{#:float}", "{#}"];
        let patterns: Vec<String> = (0..4usize.pow(depth))
            .map(|number| {
                let segment = |at| kinds[number / 4usize.pow(at) % 4].replace('#', &format!("p{at}"));
                (0..depth).map(|at| format!("/{}", segment(at))).collect::<String>() + "/x"
            })
            .collect();
        let tree = tree(&patterns.iter().map(String::as_str).collect::<Vec<_>>());

        for path in ["/1".repeat(6) + "/y", "/1".repeat(60_000), "/%31".repeat(10_000), "/".repeat(60_000)] {
            DESCENTS.set(0);
            let found = tree.walk(&path, path.contains('%'), Some);

            assert_eq!(found, None);
            assert!(DESCENTS.get() <= nodes(&tree.root), "{} descents", DESCENTS.get());
        }
    }

    #[test]
    fn a_long_path_on_a_small_table_stops_where_the_table_ends() {
        let tree = tree(&["/{a}/{b}/{c}/x", "/{a}/{b}/{c}/{d:int}"]);

        DESCENTS.set(0);
        tree.walk(&"/1".repeat(30_000), false, Some);

        assert_eq!(DESCENTS.get(), 5);
    }
}
