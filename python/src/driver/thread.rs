//! The thread driver: tokio on a thread of its own, beside a loop it does not control.
//!
//! Requests go to the loop in batches: the runtime collects them while it has work, and tells the loop once, right
//! before it waits. Answers come back the same way ([`Bell`]).
//!
//! One file, because both ends of the way between the two threads have to agree on who is told when.
//!
//! Rules:
//! 1. The runtime's thread never attaches to the interpreter: it may be joined by whoever holds it, and no Python code
//!    can keep connections from being served.
//! 2. What waits for the loop is bounded: when the queue is full, requests wait outside of it, each at the expense of
//!    its own connection.
//! 3. A job that is dropped instead of run drops its [`Slot`], which answers: no request waits for ever.
//!
//! One file, because the queue, the knock and the thread are one protocol: each step is only right beside the others.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem::{replace, take},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{Sender, channel},
    },
    task::{Poll, Waker},
    thread,
    time::Duration,
};
#[cfg(unix)]
use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
};

use httpy::Reply;
#[cfg(unix)]
use pyo3::exceptions::{PyAttributeError, PyNotImplementedError};
use pyo3::{intern, prelude::*};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::spawn_local,
};

use super::{Bell, EventLoop, Home, Pinned, Seat, Slot, fork, sit};
use crate::threads::{self, Pool};

/// How many requests wait for the loop at most, unless configured. Four turns of the loop.
const QUEUE: usize = 1024;
/// How many jobs the loop runs before its own callbacks have their turn.
const TURN: usize = 256;
/// After how many requests the loop is told although the runtime does not wait yet.
const UNTOLD: usize = 32;

/// Runs on the loop's thread.
pub(crate) type Job = Box<dyn FnOnce(Python<'_>, &Rc<EventLoop>) + Send>;
type Task = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The runtime's view of the loop.
pub(crate) struct There {
    inbox: Arc<Inbox>,
    home: Arc<Home>,
    bell: Arc<Bell>,
    pool: Arc<Pool>,
}

impl There {
    /// Where `def` handlers run.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The loop and the base context.
    pub(crate) fn home(&self) -> Arc<Home> {
        self.home.clone()
    }

    /// Answers a request by a job on the loop's thread. Waits while the queue is full.
    pub(crate) fn reply(
        self: &Arc<Self>,
        work: impl FnOnce(Python<'_>, &Rc<EventLoop>, Slot) + Send + 'static,
    ) -> Reply {
        let (slot, waiting) = Slot::new(self.bell.clone(), None);
        let job: Job = Box::new(move |py, event_loop| {
            if !slot.is_given_up() {
                work(py, event_loop, slot);
            }
        });
        match self.inbox.try_add(job) {
            Ok(()) => Reply::later(waiting),
            Err(job) => {
                let there = self.clone();
                Reply::later(async move {
                    there.inbox.add(job).await;
                    waiting.await
                })
            }
        }
    }

    /// Runs a job on the loop's thread, past the bound: see [`super::tell`].
    pub(crate) fn tell(&self, job: Job) {
        self.inbox.push(job);
    }

    /// Tells the loop that jobs wait.
    pub(crate) fn flush(&self) {
        self.inbox.flush();
        self.pool.flush();
    }
}

/// Jobs on their way to the loop.
struct Inbox {
    queue: Mutex<Queue>,
    /// None until the loop runs for the first time.
    knock: OnceLock<Knock>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Requests that found the queue full.
    outside: VecDeque<Waker>,
    /// Jobs added since the loop was told.
    untold: usize,
    /// Whether the loop was told and has not looked since.
    told: bool,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn try_add(&self, job: Job) -> Result<(), Job> {
        if self.lock().jobs.len() >= QUEUE {
            return Err(job);
        }
        self.push(job);
        Ok(())
    }

    async fn add(&self, job: Job) {
        let mut job = Some(job);
        poll_fn(|cx| {
            let Some(waits) = job.take() else { return Poll::Ready(()) };
            match self.try_add(waits) {
                Ok(()) => Poll::Ready(()),
                Err(waits) => {
                    job = Some(waits);
                    self.lock().outside.push_back(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
    }

    fn push(&self, job: Job) {
        let mut queue = self.lock();
        if queue.closed {
            drop(queue);
            // Outside the lock: its slot answers.
            drop(job);
            return;
        }
        queue.jobs.push_back(job);
        queue.untold += 1;
        let tells = queue.untold >= UNTOLD;
        drop(queue);
        if tells {
            self.flush();
        }
    }

    fn flush(&self) {
        let mut queue = self.lock();
        if take(&mut queue.untold) > 0 && !replace(&mut queue.told, true) {
            drop(queue);
            if let Some(knock) = self.knock.get() {
                knock.knock();
            }
        }
    }

    /// Takes a job, and the wakers of requests there is room for now.
    fn take(&self, bell: &Bell) -> Option<Job> {
        let mut queue = self.lock();
        let job = queue.jobs.pop_front();
        if queue.jobs.len() < QUEUE
            && let Some(waker) = queue.outside.pop_front()
        {
            bell.leave(waker);
        }
        job
    }

    /// Refuses jobs from now on, and drops those there are.
    fn close(&self, bell: &Bell) {
        let mut queue = self.lock();
        queue.closed = true;
        let (jobs, outside) = (take(&mut queue.jobs), take(&mut queue.outside));
        drop(queue);
        drop(jobs);
        outside.into_iter().for_each(|waker| bell.leave(waker));
        bell.ring();
    }
}

/// How the loop is told.
enum Knock {
    /// By a byte on a socket it watches: ours, and the one it watches.
    #[cfg(unix)]
    Socket(UnixStream, UnixStream),
    /// By a thread that may attach: for loops that watch no descriptors (Windows' Proactor).
    Thread(Mutex<Option<Sender<()>>>),
}

impl Knock {
    fn knock(&self) {
        match self {
            // An error means that knocks enough are on their way, or that the loop is gone.
            #[cfg(unix)]
            Self::Socket(ours, _) => drop(Write::write(&mut &*ours, &[0])),
            Self::Thread(sender) => drop(lock(sender).as_ref().map(|sender| sender.send(()))),
        }
    }

    /// The loop heard it. First of all, so that none is missed.
    fn heard(&self) {
        match self {
            #[cfg(unix)]
            Self::Socket(_, theirs) => drop(Read::read(&mut &*theirs, &mut [0; 16])),
            Self::Thread(_) => {}
        }
    }
}

/// The loop's side: what it calls when jobs wait.
#[pyclass(frozen, module = "httpy._httpy", name = "_Inbox")]
struct Receiver {
    inbox: Arc<Inbox>,
    event_loop: Pinned<Rc<EventLoop>>,
    call_soon: Py<PyAny>,
    generation: u32,
}

#[pymethods]
impl Receiver {
    fn __call__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let Self { inbox, event_loop, call_soon, generation } = slf.get();
        if *generation != fork::generation() {
            return Ok(());
        }
        let event_loop = event_loop.get()?;
        inbox.look();
        event_loop.bell().hold();
        let is_empty = inbox.run_jobs(slf.py(), event_loop);
        event_loop.bell().ring_due();
        if !is_empty {
            call_soon.call1(slf.py(), (slf,))?;
        }
        Ok(())
    }
}

impl Inbox {
    /// The loop looks now: what comes later needs another knock.
    fn look(&self) {
        if let Some(knock) = self.knock.get() {
            knock.heard();
        }
        self.lock().told = false;
    }

    /// Runs what waits, one turn of it. Returns whether that was all.
    fn run_jobs(&self, py: Python<'_>, event_loop: &Rc<EventLoop>) -> bool {
        for _ in 0..TURN {
            let Some(job) = self.take(event_loop.bell()) else { return true };
            // A panic ends its job: its slot has answered while it unwound.
            if catch_unwind(AssertUnwindSafe(|| job(py, event_loop))).is_err() {
                tracing::error!(kind = "bug", "a panic on the loop's thread was contained and answered with 500");
            }
        }
        false
    }

    /// Makes the loop call us when jobs wait. The loop's thread.
    fn connect(self: &Arc<Self>, py: Python<'_>, event_loop: Rc<EventLoop>) -> PyResult<()> {
        let object = event_loop.object(py).clone();
        let call_soon = object.getattr(intern!(py, "call_soon"))?;
        let receiver = Receiver {
            inbox: self.clone(),
            event_loop: Pinned::new(event_loop),
            call_soon: call_soon.clone().unbind(),
            generation: fork::generation(),
        };
        let receiver = Bound::new(py, receiver)?;
        let knock = match watch(&object, &receiver)? {
            Some(knock) => knock,
            None => knock_from_thread(object.unbind(), receiver.clone().unbind())?,
        };
        // Set once: there is one `Connect` for an inbox, and it is called once.
        let _ = self.knock.set(knock);
        // What came before the loop ran.
        call_soon.call1((receiver,)).map(drop)
    }

    /// Undoes `connect`. The loop's thread.
    #[cfg_attr(not(unix), expect(unused_variables, reason = "there is nothing to tell the loop"))]
    fn disconnect(&self, py: Python<'_>, event_loop: &EventLoop) {
        event_loop.close();
        match self.knock.get() {
            #[cfg(unix)]
            Some(Knock::Socket(_, theirs)) => {
                let object = event_loop.object(py);
                let removed = object.call_method1(intern!(py, "remove_reader"), (theirs.as_raw_fd(),));
                if let Err(error) = removed {
                    error.write_unraisable(py, Some(object));
                }
            }
            Some(Knock::Thread(sender)) => drop(lock(sender).take()),
            None => {}
        }
    }
}

/// Makes the loop watch a socket; none if it can't.
#[cfg(unix)]
fn watch(event_loop: &Bound<'_, PyAny>, receiver: &Bound<'_, Receiver>) -> PyResult<Option<Knock>> {
    let py = event_loop.py();
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    match event_loop.call_method1(intern!(py, "add_reader"), (theirs.as_raw_fd(), receiver)) {
        Ok(_) => Ok(Some(Knock::Socket(ours, theirs))),
        Err(error)
            if error.is_instance_of::<PyNotImplementedError>(py) || error.is_instance_of::<PyAttributeError>(py) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail elsewhere")]
fn watch(_event_loop: &Bound<'_, PyAny>, _receiver: &Bound<'_, Receiver>) -> PyResult<Option<Knock>> {
    Ok(None)
}

fn knock_from_thread(event_loop: Py<PyAny>, receiver: Py<Receiver>) -> PyResult<Knock> {
    let (sender, knocks) = channel();
    thread::Builder::new().name("httpy-knock".to_owned()).spawn(move || {
        threads::block_signals();
        while knocks.recv().is_ok() {
            // None if the interpreter ends, an error if the loop is closed: either way nobody waits for it any more.
            let _ = Python::try_attach(|py| {
                event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (&receiver,)).map(drop)
            });
        }
    })?;
    Ok(Knock::Thread(Mutex::new(Some(sender))))
}

/// A runtime on a thread of its own, and what connects it to the loop.
pub(crate) struct RuntimeThread {
    there: Arc<There>,
    /// None once closed.
    running: Mutex<Option<Running>>,
}

struct Running {
    tasks: UnboundedSender<Task>,
    thread: thread::JoinHandle<()>,
}

impl RuntimeThread {
    /// Starts the thread, for a loop that runs or is about to. From any thread.
    ///
    /// # Errors
    /// If the system refuses a thread or descriptors, or the loop is closed.
    pub(crate) fn start(py: Python<'_>, home: Arc<Home>, max_threads: usize) -> PyResult<Self> {
        fork::watch();
        threads::end_with_interpreter(py)?;
        let bell = Arc::new(Bell::default());
        bell.ring_through(home.event_loop.bind(py))?;
        let pool = Pool::new(bell.clone(), max_threads);
        let inbox = Arc::new(Inbox { queue: Mutex::default(), knock: OnceLock::new() });
        let there = Arc::new(There { inbox, home, bell, pool });

        let connect = Py::new(py, Connect { there: there.clone() })?;
        there.home.event_loop.call_method1(py, intern!(py, "call_soon_threadsafe"), (connect,))?;

        let (tasks, incoming) = unbounded_channel();
        let seat = there.clone();
        let thread = thread::Builder::new().name("httpy-runtime".to_owned()).spawn(move || serve(seat, incoming))?;
        Ok(Self { there, running: Mutex::new(Some(Running { tasks, thread })) })
    }

    /// Starts a task on the runtime's thread. `Err` once it has ended.
    pub(crate) fn spawn(&self, task: Task) -> Result<(), ()> {
        match &*lock(&self.running) {
            Some(running) => running.tasks.send(task).map_err(drop),
            None => Err(()),
        }
    }

    /// Ends the runtime and everything that runs on it; handlers that still run are cancelled. Idempotent.
    ///
    /// Waits for the runtime's thread, which waits for nobody, and not for the loop: what is left to do there is done
    /// when it runs next.
    pub(crate) fn close(&self, py: Python<'_>) {
        let Some(Running { tasks, thread }) = lock(&self.running).take() else { return };
        drop(tasks);
        if py.detach(|| thread.join()).is_err() {
            tracing::error!(kind = "bug", "the runtime's thread panicked");
        }
        let There { inbox, home, bell, pool } = &*self.there;
        pool.close();
        let is_closed = home.event_loop.call_method0(py, intern!(py, "is_closed"));
        if is_closed.and_then(|is_closed| is_closed.is_truthy(py)).unwrap_or(true) {
            inbox.close(bell);
        } else {
            let there = self.there.clone();
            inbox.push(Box::new(move |py, event_loop| {
                there.inbox.disconnect(py, event_loop);
                there.inbox.close(&there.bell);
            }));
            inbox.flush();
        }
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        Python::attach(|py| self.close(py));
    }
}

/// How long the end of a runtime waits for file operations under way. 1 s.
const BLOCKING_GRACE: Duration = Duration::from_secs(1);

/// The runtime's thread.
fn serve(there: Arc<There>, mut tasks: UnboundedReceiver<Task>) {
    threads::block_signals();
    let built =
        Builder::new_current_thread().enable_all().on_thread_park(super::flush).build_local(LocalOptions::default());
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "can't start a runtime");
            return;
        }
    };
    let bell = there.bell.clone();
    sit(Some(Seat::There(there)));
    bell.set_inside(true);
    runtime.block_on(poll_fn(|cx| {
        bell.answer(cx);
        loop {
            match tasks.poll_recv(cx) {
                Poll::Ready(Some(task)) => drop(spawn_local(task())),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }));
    bell.set_inside(false);
    // Before the seat is given up: what is dropped cancels handlers, through the inbox.
    runtime.shutdown_timeout(BLOCKING_GRACE);
    super::flush();
    sit(None);
}

/// Called by the loop once it runs: connects its side.
#[pyclass(frozen, module = "httpy._httpy", name = "_Connect")]
struct Connect {
    there: Arc<There>,
}

#[pymethods]
impl Connect {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let connected = self.connect(py);
        if connected.is_err() {
            self.there.inbox.close(&self.there.bell);
        }
        connected
    }
}

impl Connect {
    fn connect(&self, py: Python<'_>) -> PyResult<()> {
        threads::hang_if_ended();
        let There { inbox, home, bell, pool } = &*self.there;
        let event_loop = EventLoop::new(py, home.clone(), bell.clone(), pool.clone())?;
        inbox.connect(py, event_loop)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
