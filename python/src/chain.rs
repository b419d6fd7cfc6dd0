//! What stands around a function: the Python middleware of its app and of those that app is mounted in, and which of
//! these apps answers an error where.
//!
//! ```text
//! outer app                mounted app
//! stage 0   stage 1   |   stage 2   stage 3   function
//!                     ^
//!                     to the outer app, everything from here on is one function
//! ```
//!
//! An app is asked twice: right around what it leads to, so that its middleware sees the answer, and around its
//! middleware. What a mounted app does not answer goes on to the app it is mounted in, as from a function of that one.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::context::Context;

/// The stages around a function, and the apps they belong to.
pub(crate) struct Chain {
    stages: Vec<Py<PyAny>>,
    /// Outermost first.
    apps: Vec<Within>,
}

struct Within {
    context: Arc<Context>,
    /// The place of its first stage. Its last is the one before the next app's first.
    start: usize,
}

impl Chain {
    /// The chain of an app that is mounted in none.
    pub(crate) fn new() -> Self {
        Self { stages: Vec::new(), apps: Vec::new() }
    }

    /// This chain, and inside of it an app with its middleware.
    pub(crate) fn with_app(&self, py: Python<'_>, context: &Arc<Context>, middleware: &[Py<PyAny>]) -> Self {
        let mut chain = self.with_stages(py, middleware);
        chain.apps.push(Within { context: context.clone(), start: self.stages.len() });
        chain
    }

    /// This chain, and inside of it stages of the same app.
    pub(crate) fn with_stages(&self, py: Python<'_>, stages: &[Py<PyAny>]) -> Self {
        let apps = self.apps.iter().map(|app| Within { context: app.context.clone(), start: app.start }).collect();
        Self { stages: self.stages.iter().chain(stages).map(|stage| stage.clone_ref(py)).collect(), apps }
    }

    /// Whether the function stands alone.
    pub(crate) fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// The stage at a place; none at the function's.
    pub(crate) fn stage(&self, place: usize) -> Option<&Py<PyAny>> {
        self.stages.get(place)
    }

    /// Who is asked, in this order, about an error that comes out of the stage or function at a place.
    pub(crate) fn answering(&self, place: usize) -> impl Iterator<Item = &Arc<Context>> {
        let is_asked = move |index: usize, app: &Within| {
            let end = self.apps.get(index + 1).map_or(self.stages.len(), |next| next.start);
            app.start == place || end == place
        };
        let apps = self.apps.iter().enumerate().rev();
        apps.filter(move |&(index, app)| is_asked(index, app)).map(|(_, app)| &app.context)
    }
}
