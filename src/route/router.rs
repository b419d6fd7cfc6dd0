//! Walk 8/10. Before: middleware/*. After: endpoint/*, or the door to Python.
//!
//! Routing as a handler: hands a request to whoever answers its path, and answers 400, 404, 405, OPTIONS and the
//! trailing-slash redirect itself.

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderValue, Method, StatusCode, header};

use super::{Conflict, Found, Methods, Pattern, Table};
use crate::{
    handler::{Handler, Reply},
    message::{Body, Request, Response, refusal},
};

/// Answers for the router in an application's own way: gets the request and the response HTTPy would send, which says
/// no (400, 404, 405), which methods there are (204) or where to go (308).
pub type Refuse = Arc<dyn Fn(Request, Response) -> Reply + Send + Sync>;

/// Routes requests to handlers.
#[derive(Default)]
pub struct Router {
    table: Table<Target>,
    methods: BTreeSet<String>,
    redirect_slashes: bool,
    root_path: String,
    refuse: Option<Refuse>,
}

enum Target {
    Handler(Arc<dyn Handler>),
    /// A handler for everything below a prefix of this many segments.
    Mount(Arc<dyn Handler>, usize),
}

impl Router {
    /// A router without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Redirects (308) a path that only lacks, or only has too much, a slash at its end. Off by default.
    #[must_use]
    pub fn redirect_slashes(mut self, on: bool) -> Self {
        self.redirect_slashes = on;
        self
    }

    /// Says what a proxy has taken away from the beginning of paths, so that redirects lead back through it. None by default.
    #[must_use]
    pub fn root_path(mut self, path: impl Into<String>) -> Self {
        self.root_path = path.into();
        self
    }

    /// Has `refuse` answer where no route does.
    #[must_use]
    pub fn refuse(mut self, refuse: Refuse) -> Self {
        self.refuse = Some(refuse);
        self
    }

    /// Adds a route.
    ///
    /// # Errors
    /// If a route with one of the methods and the same shape is there already.
    pub fn add(&mut self, methods: Methods, pattern: Pattern, handler: Arc<dyn Handler>) -> Result<(), Conflict> {
        self.methods.extend(methods.names().map(str::to_owned));
        self.table.add(methods, pattern, Target::Handler(handler))
    }

    /// Adds a handler for a prefix and everything below it, any method. It sees the path without the prefix.
    ///
    /// # Errors
    /// If something answers any method there already.
    ///
    /// # Panics
    /// If the prefix has parameters; callers check.
    pub fn mount(&mut self, prefix: &Pattern, handler: Arc<dyn Handler>) -> Result<(), Conflict> {
        assert!(prefix.parameters().next().is_none(), "a mount's prefix has no parameters");
        let text = prefix.to_string();
        let text = text.trim_end_matches('/');
        let segments = text.matches('/').count();
        let below =
            Pattern::parse(&format!("{text}/{{path:path}}")).expect("a literal prefix and a path are a pattern");
        self.table.add(Methods::any(), below, Target::Mount(handler.clone(), segments))?;
        if !text.is_empty() {
            let exact = Pattern::parse(text).expect("a pattern without its last slash is a pattern");
            self.table.add(Methods::any(), exact, Target::Mount(handler, segments))?;
        }
        Ok(())
    }

    fn no(&self, request: Request, response: Response) -> Reply {
        match &self.refuse {
            Some(refuse) => refuse(request, response),
            None => response.into(),
        }
    }
}

impl Handler for Router {
    fn call(&self, mut request: Request) -> Reply {
        // A mount that was reached by its prefix alone leaves nothing; its own routes start at `/`.
        let path = match request.path() {
            "" => "/",
            path => path,
        };
        match self.table.find(&request.method, path) {
            Found::Match { value: Target::Handler(handler), params, .. } => {
                request.params = params;
                handler.call(request)
            }
            Found::Match { value: Target::Mount(handler, segments), .. } => {
                let mut slashes = request.path().match_indices('/').map(|(at, _)| at);
                // The path after the prefix starts with the slash after its last segment, or is empty.
                let taken = slashes.nth(*segments).unwrap_or(request.path().len());
                request.root_len += taken;
                handler.call(request)
            }
            Found::Options { allow } => self.no(request, allowed(StatusCode::NO_CONTENT, allow)),
            Found::MethodNotAllowed { allow } => {
                let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
                response.headers_mut().insert(header::ALLOW, allow);
                self.no(request, response)
            }
            // RFC 9110 §9.3.7: `OPTIONS *` asks about the server in general.
            Found::NotFound if request.method == Method::OPTIONS && request.uri.path() == "*" => {
                let names: Vec<&str> = self.methods.iter().map(String::as_str).collect();
                let allow = HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"));
                allowed(StatusCode::NO_CONTENT, allow).into()
            }
            Found::NotFound => {
                if self.redirect_slashes
                    && let Some(location) = self.other_slash(&request)
                {
                    let mut response = Response::new(Body::Empty);
                    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
                    response.headers_mut().insert(header::LOCATION, location);
                    return self.no(request, response);
                }
                self.no(request, refusal(StatusCode::NOT_FOUND, "Not Found"))
            }
            Found::BadPath => {
                self.no(request, refusal(StatusCode::BAD_REQUEST, "The path is not valid percent-encoded UTF-8"))
            }
        }
    }
}

impl Router {
    fn other_slash(&self, request: &Request) -> Option<HeaderValue> {
        let other = self.table.find_other_slash(&request.method, request.path())?;
        let root = &request.uri.path()[..request.root_len];
        let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        HeaderValue::try_from(format!("{}{root}{other}{query}", self.root_path)).ok()
    }
}

fn allowed(status: StatusCode, allow: HeaderValue) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::message::text;

    fn says(content: &'static str) -> Arc<dyn Handler> {
        Arc::new(move |request: Request| -> Reply {
            text(StatusCode::OK, format!("{content} {} {:?}", request.path(), request.params.get(request.path(), 0)))
                .into()
        })
    }

    fn router() -> Router {
        let mut inner = Router::new().redirect_slashes(true);
        inner.add(Method::GET.into(), Pattern::parse("/{id:int}").unwrap(), says("inner")).unwrap();
        let mut router = Router::new().redirect_slashes(true);
        router.add(Method::GET.into(), Pattern::parse("/users/{name}").unwrap(), says("user")).unwrap();
        router.mount(&Pattern::parse("/m\u{e9}/api").unwrap(), Arc::new(inner)).unwrap();
        router
    }

    fn answer(router: &Router, method: Method, target: &str) -> (u16, String, String) {
        let Reply::Now(response) = router.call(Request::new(method, target.parse().unwrap())) else { panic!() };
        let field = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let field = field("allow").or(field("location")).unwrap_or_default();
        let Body::Full(content) = response.body() else { return (response.status().into(), String::new(), field) };
        (response.status().into(), String::from_utf8(content.to_vec()).unwrap(), field)
    }

    #[test]
    fn hands_requests_to_their_routes() {
        let (status, content, _) = answer(&router(), Method::GET, "/users/ada?x=1");

        assert_eq!((status, content.as_str()), (200, "user /users/ada Some(\"ada\")"));
    }

    #[test]
    fn a_mount_sees_the_path_without_its_prefix() {
        let (status, content, _) = answer(&router(), Method::GET, "/m%C3%A9/api/7");

        assert_eq!((status, content.as_str()), (200, "inner /7 Some(\"7\")"));
    }

    #[test]
    fn refuses_what_no_route_answers() {
        let router = router();

        assert_eq!(answer(&router, Method::GET, "/nope"), (404, "{\"detail\":\"Not Found\"}".into(), "".into()));
        assert_eq!(answer(&router, Method::GET, "/%zz").0, 400);
        let (status, _, allow) = answer(&router, Method::POST, "/users/ada");
        assert_eq!((status, allow.as_str()), (405, "GET, HEAD, OPTIONS"));
        let (status, _, allow) = answer(&router, Method::OPTIONS, "/users/ada");
        assert_eq!((status, allow.as_str()), (204, "GET, HEAD, OPTIONS"));
        assert_eq!(answer(&router, Method::OPTIONS, "*").2, "GET, HEAD, OPTIONS");
    }

    #[test]
    fn redirects_to_the_other_slash_and_keeps_prefix_and_query() {
        let (status, _, location) = answer(&router(), Method::GET, "/m%C3%A9/api/7/?q=1");

        assert_eq!((status, location.as_str()), (308, "/m%C3%A9/api/7?q=1"));
    }

    #[test]
    fn redirects_lead_back_through_the_proxy_that_took_a_part_of_the_path() {
        let mut router = Router::new().redirect_slashes(true).root_path("/shop");
        router.add(Method::GET.into(), Pattern::parse("/a").unwrap(), says("a")).unwrap();

        let (status, _, location) = answer(&router, Method::GET, "/a/");

        assert_eq!((status, location.as_str()), (308, "/shop/a"));
    }
}
