//! The routing table of one application, as Python fills it and as the server uses it.

use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use httpy::{
    Handler, Reply, Request,
    route::{Found, Methods, Pattern, Refuse, Router, Table},
    ws,
};
use pyo3::{PyTraverseError, PyVisit, exceptions::PyValueError, prelude::*, types::PyDict};

use crate::{
    call::{Callable, Endpoint, Limits, Refused, Routed},
    chain::Chain,
    context::{Context, PyContext},
    errors,
    websocket::{HostedSockets, SocketEndpoint},
};

/// The routing table of one application.
#[pyclass(frozen, module = "httpy._httpy")]
pub(crate) struct Routes {
    context: Arc<Context>,
    middleware: Vec<Py<PyAny>>,
    redirect_slashes: bool,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// What is registered, to find conflicts at once.
    table: Table<()>,
    endpoints: Vec<(Methods, Pattern, Py<Endpoint>)>,
    sockets: Vec<(Pattern, Py<SocketEndpoint>)>,
    /// Those of WebSockets, to find conflicts among them.
    socket_table: Table<()>,
    mounts: Vec<(Pattern, Py<Routes>)>,
    /// What answers everything, without routes.
    whole: Option<Py<Endpoint>>,
}

#[pymethods]
impl Routes {
    #[new]
    #[pyo3(signature = (context, *, middleware=Vec::new(), redirect_slashes=false))]
    fn new(context: &PyContext, middleware: Vec<Py<PyAny>>, redirect_slashes: bool) -> Self {
        Self { context: context.0.clone(), middleware, redirect_slashes, entries: Mutex::default() }
    }

    /// Registers an endpoint for methods (None: any) of a pattern.
    ///
    /// Raises `RouteError` if the pattern is malformed, a method is not a token, or another route answers the same.
    #[pyo3(signature = (methods, pattern, endpoint, /))]
    fn add(
        &self,
        py: Python<'_>,
        methods: Option<Vec<String>>,
        pattern: &str,
        endpoint: &Bound<'_, Endpoint>,
    ) -> PyResult<()> {
        let pattern = self::pattern(py, pattern)?;
        let methods = match methods {
            None => Methods::any(),
            Some(names) => {
                let parse = |name: &String| {
                    let not_a_token = |_| errors::route(py, format!("method {name:?} is not a token (RFC 9110 §9.1)"));
                    Method::from_bytes(name.as_bytes()).map_err(not_a_token)
                };
                let list = names.iter().map(parse).collect::<PyResult<Vec<_>>>()?;
                Methods::from_list(list).ok_or_else(|| errors::route(py, format!("route {pattern} has no method")))?
            }
        };
        // Says at registration what the handler takes and the pattern lacks.
        endpoint.get().check(py, &pattern).map_err(|error| errors::route(py, error.value(py).to_string()))?;
        let mut entries = self.lock();
        entries
            .table
            .add(methods.clone(), pattern.clone(), ())
            .map_err(|conflict| errors::route(py, conflict.to_string()))?;
        entries.endpoints.push((methods, pattern, endpoint.clone().unbind()));
        Ok(())
    }

    /// Registers an endpoint for the WebSockets of a pattern.
    ///
    /// Raises `RouteError` if the pattern is malformed, or another route takes the same WebSockets.
    #[pyo3(signature = (pattern, endpoint, /))]
    fn add_websocket(&self, py: Python<'_>, pattern: &str, endpoint: &Bound<'_, SocketEndpoint>) -> PyResult<()> {
        let pattern = self::pattern(py, pattern)?;
        endpoint.get().check(py, &pattern).map_err(|error| errors::route(py, error.value(py).to_string()))?;
        let mut entries = self.lock();
        entries
            .socket_table
            .add(Methods::from(Method::GET), pattern.clone(), ())
            .map_err(|conflict| errors::route(py, conflict.to_string()))?;
        entries.sockets.push((pattern, endpoint.clone().unbind()));
        Ok(())
    }

    /// Has another application's routes answer everything below a prefix.
    #[pyo3(signature = (prefix, routes, /))]
    fn mount(&self, py: Python<'_>, prefix: &str, routes: &Bound<'_, Routes>) -> PyResult<()> {
        let prefix = self::pattern(py, prefix)?;
        if prefix.parameters().next().is_some() {
            return Err(errors::route(py, format!("the prefix of a mount has no parameters, found {prefix}")));
        }
        self.lock().mounts.push((prefix, routes.clone().unbind()));
        Ok(())
    }

    /// Has one endpoint answer everything, instead of routes.
    #[pyo3(signature = (endpoint, /))]
    fn hand_over(&self, endpoint: &Bound<'_, Endpoint>) {
        let old = self.lock().whole.replace(endpoint.clone().unbind());
        drop(old);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for middleware in &self.middleware {
            visit.call(middleware)?;
        }
        if let Ok(entries) = self.entries.try_lock() {
            visit.call(&entries.whole)?;
            for (_, _, endpoint) in &entries.endpoints {
                visit.call(endpoint)?;
            }
            for (_, endpoint) in &entries.sockets {
                visit.call(endpoint)?;
            }
            for (_, routes) in &entries.mounts {
                visit.call(routes)?;
            }
        }
        Ok(())
    }
}

impl Routes {
    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handler of the whole application. `prefix` is where it is mounted; `outer` stands around it.
    ///
    /// # Errors
    /// `RouteError` for conflicts between mounts and routes.
    pub(crate) fn build(
        &self,
        py: Python<'_>,
        prefix: &str,
        limits: &Limits,
        outer: &Chain,
    ) -> PyResult<Arc<dyn Handler>> {
        // 512 bytes of prefixes: applications that are mounted in a circle have no end of them.
        if prefix.len() > 512 {
            return Err(errors::route(py, format!("applications are mounted too deep, or in a circle: {prefix}")));
        }
        let chain = Arc::new(outer.with_app(py, &self.context, &self.middleware));
        if let Some(whole) = &self.lock().whole {
            // Any pattern fits an endpoint that takes nothing from it.
            let pattern = self::pattern(py, "/{path:path}")?;
            let others = Routed(whole.get().on_route(py, &pattern, prefix, limits, &chain)?);
            return Ok(match whole.get().sockets(limits) {
                Some(sockets) => Arc::new(Both { sockets, others }),
                None => Arc::new(others),
            });
        }
        let mut router = Router::new()
            .redirect_slashes(self.redirect_slashes)
            .root_path(self.context.root_path())
            .refuse(self.refusal(&chain, limits));
        let entries = self.lock();
        for (methods, pattern, endpoint) in &entries.endpoints {
            let callable = endpoint.get().on_route(py, pattern, prefix, limits, &chain)?;
            router
                .add(methods.clone(), pattern.clone(), Arc::new(Routed(callable)))
                .map_err(|conflict| errors::route(py, conflict.to_string()))?;
        }
        for (mounted, routes) in &entries.mounts {
            let below = format!("{}{}", prefix, mounted.to_string().trim_end_matches('/'));
            let handler = routes.get().build(py, &below, limits, &chain)?;
            router.mount(mounted, handler).map_err(|conflict| errors::route(py, conflict.to_string()))?;
        }
        if entries.sockets.is_empty() {
            return Ok(Arc::new(router));
        }
        let mut sockets = Table::new();
        for (pattern, endpoint) in &entries.sockets {
            let route = endpoint.get().on_route(py, pattern, prefix, limits)?;
            sockets
                .add(Methods::from(Method::GET), pattern.clone(), Some(Arc::new(route) as Arc<dyn Handler>))
                .map_err(|conflict| errors::route(py, conflict.to_string()))?;
            // Where a GET has no answer of its own, it is told what would have one.
            let says = |_: Request| -> Reply { ws::upgrade_required().into() };
            let _ = router.add(Methods::from(Method::GET), pattern.clone(), Arc::new(says));
        }
        for (mounted, _) in &entries.mounts {
            // Below its prefix a mount takes what no route names more closely, as it does with other requests. What a route
            // names just the same is the route's.
            for below in [format!("{mounted}"), format!("{}/{{path:path}}", mounted.to_string().trim_end_matches('/'))]
            {
                let _ = sockets.add(Methods::from(Method::GET), self::pattern(py, &below)?, None);
            }
        }
        Ok(Arc::new(WithSockets { sockets, router }))
    }

    /// How the router says no: through middleware and error handlers, where there are any for it.
    fn refusal(&self, chain: &Arc<Chain>, limits: &Limits) -> Refuse {
        let (context, chain, limits) = (self.context.clone(), chain.clone(), limits.clone());
        Arc::new(move |request, no| {
            if chain.is_empty() && !context.answers(no.status().as_u16()) {
                return no.into();
            }
            let callable =
                Python::attach(|py| Callable::refusing(py, &context, &chain, &limits, Refused::by_router(&no)));
            callable.answer_refused(request)
        })
    }
}

/// Routing of an application with WebSockets: those who ask for one are looked for among them first.
struct WithSockets {
    /// None is a mount's, which the router leads to.
    sockets: Table<Option<Arc<dyn Handler>>>,
    router: Router,
}

impl Handler for WithSockets {
    fn call(&self, mut request: Request) -> Reply {
        if ws::is_asked(&request) {
            let path = if request.path().is_empty() { "/" } else { request.path() };
            // By HTTP/2 the method is CONNECT (RFC 8441 §4), and nothing else is different.
            if let Found::Match { value: Some(handler), params, .. } = self.sockets.find(&Method::GET, path) {
                request.params = params;
                return handler.call(request);
            }
        }
        self.router.call(request)
    }
}

/// An app of another interface that has WebSockets, too.
struct Both {
    sockets: HostedSockets,
    others: Routed,
}

impl Handler for Both {
    fn call(&self, request: Request) -> Reply {
        if ws::is_asked(&request) { self.sockets.answer(request) } else { self.others.call(request) }
    }
}

fn pattern(py: Python<'_>, pattern: &str) -> PyResult<Pattern> {
    Pattern::parse(pattern).map_err(|error| errors::route(py, error.to_string()))
}

/// The (name, converter) pairs of a pattern.
#[pyfunction]
#[pyo3(signature = (pattern, /))]
pub(crate) fn pattern_parameters(py: Python<'_>, pattern: &str) -> PyResult<Vec<(String, &'static str)>> {
    let pattern = self::pattern(py, pattern)?;
    Ok(pattern.parameters().map(|(name, converter)| (name.to_owned(), converter.name())).collect())
}

/// The pattern in the spelling `/users/{id:int}`.
#[pyfunction]
#[pyo3(signature = (pattern, /))]
pub(crate) fn canonical_pattern(py: Python<'_>, pattern: &str) -> PyResult<String> {
    Ok(self::pattern(py, pattern)?.to_string())
}

/// Builds the path of a pattern, percent-encoded.
#[pyfunction]
#[pyo3(signature = (pattern, params, /))]
pub(crate) fn build_path(py: Python<'_>, pattern: &str, params: &Bound<'_, PyDict>) -> PyResult<String> {
    let pattern = self::pattern(py, pattern)?;
    let mut values = Vec::with_capacity(params.len());
    for (name, value) in params.iter() {
        values.push((name.extract::<String>()?, value.str()?.to_string()));
    }
    let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    pattern.build(&values).map_err(|error| PyValueError::new_err(error.to_string()))
}
