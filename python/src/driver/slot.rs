//! The place where a suspended handler leaves its response.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use httpy::Response;
use pyo3::prelude::*;

enum State<T> {
    /// The handler runs; dropping the waiter cancels it through this task.
    Running {
        waker: Option<Waker>,
        task: Option<Py<PyAny>>,
    },
    Answered(T),
    /// Taken, or given up by one of the sides.
    Closed,
}

/// The handler's side.
pub(crate) struct Slot<T = Response>(Arc<Mutex<State<T>>>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Slot<T> {
    /// Makes both sides.
    pub(crate) fn new(task: Option<Py<PyAny>>) -> (Self, Waiting<T>) {
        let slot = Self(Arc::new(Mutex::new(State::Running { waker: None, task })));
        (slot.clone(), Waiting(slot))
    }

    /// Whether nobody waits for the response any more, because the client went away.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(*self.lock(), State::Closed)
    }

    /// Leaves the response and returns who is to be woken. Does nothing if nobody waits any more.
    pub(crate) fn fill(&self, response: T) -> Option<Waker> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Running { waker, task } => {
                *state = State::Answered(response);
                drop(state);
                drop(task);
                waker
            }
            // The client went away first: its response is dropped.
            State::Answered(_) | State::Closed => None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The carrier's side: a future of the response. Dropped early, it cancels the handler's task.
pub(crate) struct Waiting<T = Response>(Slot<T>);

impl<T> Future for Waiting<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock();
        match &mut *state {
            State::Running { waker, .. } => {
                match waker {
                    Some(known) => known.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            State::Answered(_) => match std::mem::replace(&mut *state, State::Closed) {
                State::Answered(response) => Poll::Ready(response),
                State::Running { .. } | State::Closed => Poll::Pending,
            },
            State::Closed => Poll::Pending,
        }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.0.lock(), State::Closed);
        if let State::Running { task: Some(task), .. } = state {
            super::event_loop::cancel(task);
        }
    }
}
