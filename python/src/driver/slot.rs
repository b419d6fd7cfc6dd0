//! The place where a handler that was not answered at once leaves its response.

use std::{
    future::Future,
    mem::replace,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use http::StatusCode;
use httpy::{Response, message::text};
use pyo3::prelude::*;

use super::Bell;

/// ```text
/// Running --fill--> Answered --poll, Waiting dropped--> Taken
///    |------ Waiting dropped --> GivenUp                 ^
///    '------ Waiting dropped, and somebody is told ------'
/// ```
enum State {
    /// The handler runs; dropping the waiter cancels it through this task, unless somebody wants to be told instead.
    Running {
        waker: Option<Waker>,
        task: Option<Py<PyAny>>,
        follower: Option<Arc<dyn Follower>>,
    },
    Answered(Response),
    Taken,
    /// The carrier went away before there was a response.
    GivenUp,
}

/// Is told that the carrier has given up, where that is no reason to cancel a task.
pub(crate) trait Follower: Send + Sync {
    /// Nobody waits for the response any more. Called on the runtime's thread.
    fn given_up(&self);
}

struct Shared {
    state: Mutex<State>,
    bell: Arc<Bell>,
}

/// The handler's side. Dropped without a response, it answers 500: no request waits for ever.
pub(crate) struct Slot(Arc<Shared>);

impl Slot {
    /// Makes both sides. Whoever fills the slot rings `bell`.
    pub(crate) fn new(bell: Arc<Bell>, task: Option<Py<PyAny>>) -> (Self, Waiting) {
        let shared = Arc::new(Shared { state: Mutex::new(State::Running { waker: None, task, follower: None }), bell });
        (Self(shared.clone()), Waiting(shared))
    }

    /// Leaves the response, and its waker at the bell, which is left to the caller to ring. Does nothing if nobody
    /// waits any more.
    pub(crate) fn fill(self, response: Response) {
        self.0.fill(response);
    }

    /// Like [`Slot::fill`], and rings when the loop's present round of callbacks is over.
    pub(crate) fn fill_soon(self, py: Python<'_>, response: Response) {
        let bell = self.0.bell.clone();
        self.fill(response);
        bell.ring_soon(py);
    }

    /// Names the task to cancel if the carrier gives up. Returns it if the carrier already has. One that has been answered
    /// already goes on behind its response.
    pub(crate) fn set_task(&self, py: Python<'_>, running: &Py<PyAny>) -> Option<Py<PyAny>> {
        match &mut *self.0.lock() {
            State::Running { task, .. } => {
                *task = Some(running.clone_ref(py));
                None
            }
            State::GivenUp => Some(running.clone_ref(py)),
            State::Answered(_) | State::Taken => None,
        }
    }

    /// The handler's task, if it was named and the carrier has not given up.
    pub(crate) fn task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match &*self.0.lock() {
            State::Running { task, .. } => task.as_ref().map(|task| task.clone_ref(py)),
            State::Answered(_) | State::Taken | State::GivenUp => None,
        }
    }

    /// Whether the carrier has given up, so that the work need not even start.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(*self.0.lock(), State::GivenUp)
    }

    /// Something to ask later whether anybody still waits.
    pub(crate) fn watch(&self) -> Watch {
        Watch(self.0.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let is_lost = matches!(*self.0.lock(), State::Running { .. });
        if is_lost {
            self.0.fill(text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"));
            self.0.bell.ring();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, response: Response) {
        let mut state = self.lock();
        match replace(&mut *state, State::GivenUp) {
            State::Running { waker, task, follower } => {
                *state = State::Answered(response);
                drop(state);
                // Outside the lock: the task may go with it, and run Python code.
                drop((task, follower));
                if let Some(waker) = waker {
                    self.bell.leave(waker);
                }
            }
            // The client went away first.
            State::GivenUp => {
                drop(state);
                self.bell.discard(response);
            }
            answered => *state = answered,
        }
    }
}

/// The carrier's side: a future of the response. Dropped early, it cancels the handler's task.
pub(crate) struct Waiting(Arc<Shared>);

impl Future for Waiting {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let mut state = self.0.lock();
        match &mut *state {
            State::Running { waker, .. } => {
                match waker {
                    Some(known) => known.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            State::Answered(_) => match replace(&mut *state, State::Taken) {
                State::Answered(response) => Poll::Ready(response),
                State::Running { .. } | State::Taken | State::GivenUp => Poll::Pending,
            },
            State::Taken | State::GivenUp => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let state = {
            let mut state = self.0.lock();
            let next = match &*state {
                // Its task may have yet to be named, and is not to be cancelled then.
                State::Running { follower: Some(_), .. } => State::Taken,
                State::Running { .. } | State::GivenUp => State::GivenUp,
                State::Answered(_) | State::Taken => State::Taken,
            };
            replace(&mut *state, next)
        };
        match state {
            State::Running { follower: Some(follower), .. } => follower.given_up(),
            State::Running { task: Some(task), .. } => super::cancel(task),
            _ => {}
        }
    }
}

/// Tells whether anybody still waits for a response, and answers before the handler has ended.
pub(crate) struct Watch(Arc<Shared>);

impl Watch {
    /// Answers, although the handler goes on: what it comes to later counts no more. The loop's thread.
    pub(crate) fn answer_soon(&self, py: Python<'_>, response: Response) {
        self.0.fill(response);
        self.0.bell.ring_soon(py);
    }

    /// The same from any thread.
    pub(crate) fn answer(&self, response: Response) {
        self.0.fill(response);
        self.0.bell.ring();
    }

    /// Has `follower` told when the carrier gives up, in place of the handler's task being cancelled then. If it has given
    /// up already, it is told at once.
    pub(crate) fn follow(&self, follower: Arc<dyn Follower>) {
        let mut state = self.0.lock();
        match &mut *state {
            State::Running { follower: place, .. } => *place = Some(follower),
            State::GivenUp => {
                // So that nobody cancels the task after all.
                *state = State::Taken;
                drop(state);
                follower.given_up();
            }
            State::Answered(_) | State::Taken => {}
        }
    }

    /// Whether the client went away before it was answered.
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(*self.0.lock(), State::GivenUp)
    }
}
